(() => {
  const live = document.getElementById("live");
  const gone = document.getElementById("gone");
  const statusLine = document.getElementById("status");
  const status = () => live.firstElementChild.dataset.status;
  let last = status();
  const look = async () => {
    // A selection, perhaps to copy it, stays.
    if (!document.hidden && getSelection().isCollapsed) {
      try {
        const response = await fetch(live.dataset.fragment, { cache: "no-store", signal: AbortSignal.timeout(15000) });
        if (!response.ok) throw new Error(response.statusText);
        live.innerHTML = await response.text();
        live.dataset.updates = Number(live.dataset.updates || 0) + 1;
        gone.hidden = true;
        if (status() !== last) {
          last = status();
          statusLine.textContent = "The status is now " + last;
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
