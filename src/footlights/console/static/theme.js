// Classic and first, so that the page is never painted in the wrong theme.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("footlights.theme");
  } catch {
    // Storage may be forbidden: follow the system.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
