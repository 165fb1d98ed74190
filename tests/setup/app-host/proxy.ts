/**
 * A page between a client's page and an App: it has its own origin, frames the App and passes messages on. It runs in
 * a browser.
 */
const host = new URL(document.referrer).origin;
const frame = document.createElement("iframe");
frame.title = "Content of the App";
frame.setAttribute("sandbox", "allow-scripts allow-same-origin allow-forms");
document.body.append(frame);

addEventListener("message", ({ source, origin, data }) => {
  if (source === window.parent && origin === host) {
    if (data?.method !== "ui/notifications/sandbox-resource-ready")
      return frame.contentWindow?.postMessage(data, "*");
    const content = frame.contentDocument;
    content?.open();
    content?.write(data.params.html as string);
    content?.close();
  } else if (source === frame.contentWindow) {
    window.parent.postMessage(data, host);
  }
});

const ready = { jsonrpc: "2.0", method: "ui/notifications/sandbox-proxy-ready", params: {} };
window.parent.postMessage(ready, host);
