// Keeps a page live: listens to events and replaces the parts marked data-live with the server's current HTML.
// Scroll position, focus and all other parts stay unchanged.

const dot = document.getElementById("connection");
const REFRESH_MS = 1000;

function show(state, text) {
  if (!dot) return;
  dot.className = `dot ${state}`;
  dot.textContent = text;
  dot.title = "Live updates";
}

async function swap() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (answer.redirected && new URL(answer.url).pathname === "/sign-in") location.assign(answer.url);
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(old.id);
    if (!now || now.innerHTML === old.innerHTML) continue;
    const follows = old.scrollTop + old.clientHeight >= old.scrollHeight - 4;
    const top = old.scrollTop;
    old.replaceChildren(...now.childNodes);
    old.scrollTop = old.dataset.live === "tail" && follows ? old.scrollHeight : top;
  }
}

// Calls `act` at most once a second, and once more after the last call; not while the tab is hidden.
export function throttled(act) {
  let timer = null, again = false;
  const run = async () => {
    again = false;
    try { await act(); } catch (error) { console.warn("refresh failed", error); }
    timer = setTimeout(() => { timer = null; if (again) start(); }, REFRESH_MS);
  };
  const start = () => {
    if (timer !== null || document.hidden) { again = true; return; }
    timer = 0;
    run();
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden && again && timer === null) start(); });
  return start;
}

// Follows `topics` from event number `since`; `onEvent(type, data)` is called for each event as well.
export function follow(topics, since, types, onEvent = () => {}) {
  const refresh = throttled(swap);
  let last = since, source = null;
  const open = () => {
    source = new EventSource(`/api/v1/events?topics=${encodeURIComponent(topics)}&since=${last}`);
    source.onopen = () => show("live", "live");
    source.onerror = () => show("lost", "reconnecting");
    for (const type of [...types, "reset"]) {
      source.addEventListener(type, (event) => {
        last = Number(event.lastEventId) || last;
        onEvent(type, JSON.parse(event.data));
        refresh();
      });
    }
  };
  const close = () => { source?.close(); source = null; };
  open();
  // A browser allows six streams per server, so a hidden tab closes its own.
  let idle = null;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(idle);
    if (document.hidden) idle = setTimeout(close, 60000);
    else if (!source) { open(); refresh(); }
  });
  addEventListener("pagehide", close);
}

for (const box of document.querySelectorAll('[data-live="tail"]')) box.scrollTop = box.scrollHeight;

document.getElementById("sign-out")?.addEventListener("click", async () => {
  await fetch("/api/v1/session", { method: "DELETE" });
  location.assign("/sign-in");
});
