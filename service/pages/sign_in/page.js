// The part after # is not sent to a server, so the code gets into no log; it is used once and removed from the address.
const problem = document.getElementById("problem");

async function signIn(body) {
  const answer = await fetch("/api/v1/session", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  if (answer.ok) {
    const next = new URLSearchParams(location.search).get("next") ?? "/jobs";
    // Accept only a path of this server, so that a link cannot redirect people to another site.
    const target = new URL(next, location.origin);
    location.replace(target.origin === location.origin ? target.pathname + target.search : "/jobs");
    return;
  }
  const detail = await answer.json().catch(() => ({}));
  problem.textContent = detail.detail ?? `The server answered ${answer.status}.`;
  problem.hidden = false;
}

document.getElementById("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn({ token: document.getElementById("token").value.trim() });
});

const code = new URLSearchParams(location.hash.slice(1)).get("code");
if (code) {
  history.replaceState(null, "", location.pathname + location.search);
  signIn({ code });
}
