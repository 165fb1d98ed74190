/** The server's icon: a shell prompt on a dark background. It is a PNG, because every client that shows icons supports PNG. */
export const ICON = {
  src: "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAADAAAAAwAgMAAAAqbBEUAAAACVBMVEUAAAAfKTf5+vuu574fAAAAAXRSTlMAQObYZgAAAIlJREFUeNqdkrERgDAIRbFwBPdxBAuTwhHcxxFSyJSGKPJ/4V1OunfkJQQQkfSE1JgcVomEpYaAWcaAJRSTviFB/IUTICvBgVDA0RNgV4DNJYNXao+61MClBi41yAiUIQdvo3eoAqoNqzZF1Y7eP80VivcgoHYHwO5wp6u9nWOk0dNS0LrwIsGKXYf8yT0voUGcAAAAAElFTkSuQmCC",
  mimeType: "image/png",
  sizes: ["48x48"],
};
