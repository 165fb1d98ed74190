/** The panel in a client's chat. */
import { render } from "preact";
import { App } from "./app.tsx";
import { chatHost } from "./chat.ts";
import { showIn } from "./host.ts";

const root = document.createElement("div");
document.body.append(root);
void (async () => {
  showIn(await chatHost());
  render(<App />, root);
})();
