(() => {
  const live = document.getElementById("live");
  const gone = document.getElementById("gone");
  const told = document.getElementById("told");
  const status = () => live.firstElementChild.dataset.status;
  let last = status();
  const look = async () => {
    // What somebody has marked, perhaps to copy it, stays.
    if (!document.hidden && getSelection().isCollapsed) {
      try {
        const answer = await fetch("fragment", { cache: "no-store", signal: AbortSignal.timeout(15000) });
        if (!answer.ok) throw new Error(answer.statusText);
        live.innerHTML = await answer.text();
        live.dataset.updates = Number(live.dataset.updates || 0) + 1;
        gone.hidden = true;
        if (status() !== last) {
          last = status();
          told.textContent = "The status is now " + last;
          document.title = last + " – ailurus";
        }
      } catch {
        gone.hidden = false;
      }
    }
    setTimeout(look, 2000);
  };
  setTimeout(look, 2000);
})();
