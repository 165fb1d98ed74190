/** Questions inside the page, because a browser does not open its own dialogs for a frame. */

export function confirmDialog(question: string): Promise<boolean> {
  return show(question, ["Yes", "No"]);
}

export async function alertDialog(words: string): Promise<void> {
  await show(words, ["Close"]);
}

function show(words: string, labels: readonly string[]): Promise<boolean> {
  const dialog = document.createElement("dialog");
  const paragraph = document.createElement("p");
  paragraph.textContent = words;
  paragraph.id = "dialog-text";
  dialog.setAttribute("aria-labelledby", paragraph.id);
  const row = document.createElement("div");
  row.className = "together";
  dialog.append(paragraph, row);
  return new Promise((resolve) => {
    let isYes = false;
    for (const label of labels) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.className = label === "Yes" ? "" : "plain";
      button.addEventListener("click", () => {
        isYes = label === "Yes";
        dialog.close();
      });
      row.append(button);
    }
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(isYes);
    });
    document.body.append(dialog);
    dialog.showModal();
    // The focus is on "No" or "Close", so that Enter changes nothing.
    (row.lastElementChild as HTMLButtonElement).focus();
  });
}
