/** The panel: a page that shows what runs, what it prints and what there is, by the tools that every client has. */
import { render } from "preact";
import { App } from "./app.tsx";

const root = document.createElement("div");
document.body.append(root);
render(<App />, root);
