/**
 * The panel: a page that shows runs, their output and sandboxes, with the tools that every client has. A browser window and a
 * client's chat use the same script, so the Worker contains it once.
 */
import { render } from "preact";
import { App } from "./app.tsx";
import { browserHost } from "./browser.ts";
import { chatHost } from "./chat.ts";
import { setHost } from "./host.ts";
import { WAITING_FOR_CLIENT } from "./texts.ts";

const root = document.createElement("div");
document.body.append(root);
void (async () => {
  if (document.documentElement.dataset.display === undefined) setHost(browserHost());
  else {
    // Shown until the client responds, which may never happen.
    render(<p class="soft">{WAITING_FOR_CLIENT}</p>, root);
    setHost(await chatHost());
  }
  render(<App />, root);
})();
