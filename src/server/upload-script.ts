/** The script of the page that takes a file for an upload link: without it the page is a form. */
export const UPLOAD_SCRIPT = `
const form = document.getElementById("form");
const progress = document.getElementById("progress");
const said = document.getElementById("said");
function send(file) {
  const request = new XMLHttpRequest();
  request.open("PUT", location.href);
  request.upload.onprogress = (event) => { progress.value = event.loaded / event.total; };
  request.onerror = () => { said.textContent = "The connection broke. Send it again."; };
  request.onload = () => {
    const answer = JSON.parse(request.responseText);
    said.textContent = answer.error || "Sent: " + answer.size + " bytes, SHA-256 " + answer.sha256;
  };
  progress.hidden = false;
  said.textContent = file.name;
  request.send(file);
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const file = document.getElementById("file").files[0];
  if (file) send(file);
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
});
`;
