import { follow } from "../static/live.js";

follow("jobs", document.getElementById("jobs").dataset.since, ["job.state", "job.progress"]);
