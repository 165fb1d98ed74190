/** The panel: a page that shows what runs, what it prints and what there is, by the tools that every client has. */
import { render } from "preact";
import { App } from "./app.tsx";
import { browserHost } from "./browser.ts";
import { showIn } from "./host.ts";

showIn(browserHost());
const root = document.createElement("div");
document.body.append(root);
render(<App />, root);
