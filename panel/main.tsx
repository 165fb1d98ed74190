/** The panel: a page that shows runs, their output and sandboxes, with the tools that every client has. */
import { render } from "preact";
import { App } from "./app.tsx";
import { browserHost } from "./browser.ts";
import { showIn } from "./host.ts";

showIn(browserHost());
const root = document.createElement("div");
document.body.append(root);
render(<App />, root);
