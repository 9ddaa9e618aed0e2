import { follow } from "../static/live.js";

follow("devices", document.getElementById("devices").dataset.since, ["device.state", "table.filled"]);
