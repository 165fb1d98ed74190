import { UPLOAD_SCRIPT_TEXTS } from "./texts.ts";

/** The script of the upload page. Without the script, the page is a plain form. */
export const UPLOAD_SCRIPT = `
const texts = ${JSON.stringify(UPLOAD_SCRIPT_TEXTS)};
const form = document.getElementById("form");
const progress = document.getElementById("progress");
const message = document.getElementById("message");
const max = Number(form.dataset.max);
let isSending = false;
function fill(text, values) {
  return text.replace(/\\{(\\w+)\\}/g, (_all, name) => values[name]);
}
function showMessage(text, isError) {
  message.textContent = text;
  message.className = isError ? "note error" : "";
}
function end(text, isError) {
  isSending = false;
  progress.hidden = true;
  form.querySelector("button").disabled = false;
  showMessage(text, isError);
}
function resultOf(request) {
  try {
    return JSON.parse(request.responseText);
  } catch {
    return { error: fill(texts.unexpected, request) };
  }
}
function send(files) {
  if (isSending || files.length === 0) return;
  if (files.length > 1) return showMessage(texts.oneFile, true);
  const [{ name, size }] = files;
  if (size > max) return showMessage(fill(texts.tooLarge, { name, size, max }), true);
  const request = new XMLHttpRequest();
  request.open("PUT", location.href);
  request.upload.onprogress = ({ loaded, total }) => {
    progress.value = total ? loaded / total : 1;
    showMessage(fill(texts.progress, { name, percent: Math.floor(100 * progress.value) }));
  };
  request.onerror = () => end(texts.broke, true);
  request.onload = () => {
    const { error, hint, size, sha256 } = resultOf(request);
    if (error) return end([error, hint].filter(Boolean).join(" "), true);
    form.hidden = true;
    end(fill(texts.done, { name, size, sha256 }));
  };
  isSending = true;
  form.querySelector("button").disabled = true;
  progress.value = 0;
  progress.hidden = false;
  showMessage(name);
  request.send(files[0]);
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  send(document.getElementById("file").files);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  form.classList.add("over");
});
addEventListener("dragleave", () => form.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("over");
  if (!form.hidden) send(event.dataTransfer.files);
});
addEventListener("beforeunload", (event) => {
  if (isSending) event.preventDefault();
});
`;
