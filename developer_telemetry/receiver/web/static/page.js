// Keeps the page up to date while somebody looks, copies texts, and sends the test report.
// Without it everything still works, by reloading.
"use strict";

const EVERY_MS = 8000;
const SOON_MS = 700;
const AT_MOST_MS = 60000;
const PATIENCE_MS = 10000;

const main = document.getElementById("main");
const said = document.getElementById("freshness-of-page");
let failures = 0;
let timer = 0;

function say(text) {
  if (said.textContent !== text) said.textContent = text;
}

function put(id, html) {
  const place = document.getElementById(id);
  // What is being read, or has the focus inside, is left alone until the next time.
  if (!place || place.dataset.html === html || place.contains(document.activeElement)) return;
  const open = place.querySelector("details")?.open;
  const scrolled = [...place.querySelectorAll(".scrolls")].map((each) => [each.scrollLeft, each.scrollTop]);
  place.dataset.html = html;
  place.innerHTML = html; // made by the receiver, which has escaped every value in it
  if (open) place.querySelector("details")?.setAttribute("open", "");
  place.querySelectorAll(".scrolls").forEach((each, number) => {
    [each.scrollLeft, each.scrollTop] = scrolled[number] ?? [0, 0];
  });
}

async function renew() {
  const answer = await fetch("live" + location.search, {
    credentials: "same-origin",
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  if (answer.status === 403) {
    say("signed out; reload to sign in");
    return false;
  }
  if (!answer.ok) throw new Error(answer.status);
  const now = await answer.json();
  if (now.empty !== (main.dataset.empty === "yes")) {
    location.reload(); // the first machine has reported, so there is a page to show
    return false;
  }
  for (const [id, html] of Object.entries(now.sections)) put(id, html);
  main.dataset.pending = now.pending ? "yes" : "no";
  return true;
}

async function look() {
  timer = 0;
  try {
    if (!(await renew())) return;
    failures = 0;
    say("kept up to date");
  } catch {
    failures += 1;
    say("the receiver does not answer; trying again");
  }
  wait();
}

function wait() {
  if (timer || document.hidden) return;
  const pause = main.dataset.pending === "yes" ? SOON_MS : EVERY_MS;
  timer = setTimeout(look, Math.min(AT_MOST_MS, pause * 2 ** Math.min(failures, 6)));
}

function copyWithoutRights(text) {
  // On plain http a browser offers no other way.
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "unseen";
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

async function copy(button) {
  const text = document.getElementById(button.dataset.copy).textContent;
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    done = copyWithoutRights(text);
  }
  button.focus();
  button.textContent = done ? "Copied" : "Select and copy it";
  setTimeout(() => (button.textContent = "Copy"), 3000);
}

async function sendTest(form) {
  const outcome = document.getElementById("outcome");
  const button = form.querySelector("button");
  button.disabled = true;
  outcome.textContent = "Sending…";
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { "X-Part": "1" },
      credentials: "same-origin",
      signal: AbortSignal.timeout(30000),
    });
    const text = await answer.text();
    if (answer.ok) outcome.innerHTML = text; // as above
    else outcome.textContent = `It was not sent: ${text}.`;
  } catch {
    outcome.textContent = "The receiver does not answer.";
  }
  button.disabled = false;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});
document.addEventListener("submit", (event) => {
  if (event.target.id !== "test-report") return;
  event.preventDefault();
  sendTest(event.target);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    timer = 0;
  } else if (!timer) look();
});
say("kept up to date");
wait();
