import { render } from "preact";
import { App } from "./app.tsx";
import { chatHost } from "./chat.ts";
import { showIn } from "./host.ts";

const root = document.createElement("div");
document.body.append(root);
void (async () => {
  // Shown until the client responds, possibly forever.
  render(<p class="soft">Waiting for the client that shows this page.</p>, root);
  showIn(await chatHost());
  render(<App />, root);
})();
