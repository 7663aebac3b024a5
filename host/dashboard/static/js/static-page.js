// Pages without sound: only the link to the server and the colour button.
import { listen } from "./shell.js";

listen(() => {});
