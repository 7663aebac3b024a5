// Before the page is drawn: the chosen colours, so that nothing flashes. Not a module on purpose.
(() => {
  const choice = (() => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // storage forbidden: as the system
    }
  })();
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
})();
