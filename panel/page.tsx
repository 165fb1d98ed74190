/**
 * The panel: a page that shows runs, their output and sandboxes, with the tools that every client has. In a browser window and
 * in a client's chat it is the same script, so the Worker holds it once.
 */
import { render } from "preact";
import { App } from "./app.tsx";
import { browserHost } from "./browser.ts";
import { chatHost } from "./chat.ts";
import { setHost } from "./host.ts";

const root = document.createElement("div");
document.body.append(root);
void (async () => {
  if (document.documentElement.dataset.display === undefined) setHost(browserHost());
  else {
    // A client may never respond.
    render(<p class="soft">Waiting for the client that shows this page.</p>, root);
    setHost(await chatHost());
  }
  render(<App />, root);
})();
