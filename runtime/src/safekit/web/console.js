// Draws the modules anew every three seconds, asks before an action that stops something. The pages work without it.
"use strict";

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.sure;
  if (question && !window.confirm(question)) event.preventDefault();
});

const place = document.getElementById("modules");

async function draw() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/modules", { redirect: "error", cache: "no-store" });
    if (answer.status === 401) {
      window.location.assign("/login");
      return;
    }
    if (!answer.ok) throw new Error(String(answer.status));
    const text = await answer.text();
    // A form is not taken away from below a finger, nor from a question that is being answered.
    if (!place.contains(document.activeElement)) place.innerHTML = text;
    place.classList.remove("lost");
  } catch {
    place.classList.add("lost");
  }
}

if (place) window.setInterval(draw, 3000);
