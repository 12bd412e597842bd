// A classic script. It runs before the page is painted, so that the page never flashes in the other colours.
(() => {
  const THEMES = ["auto", "light", "dark"];
  const root = document.documentElement;
  const stored = () => {
    try {
      return localStorage.getItem("whyops-theme");
    } catch {
      return null; // a page opened from a file may have no storage
    }
  };
  const apply = (theme) => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
  };
  let theme = THEMES.includes(stored()) ? stored() : "auto";
  apply(theme);

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    const name = () => {
      button.textContent = `◐ ${theme}`;
      button.setAttribute("aria-label", `Colours: ${theme}`);
      button.title = "Colours: as the system has them, light, dark";
    };
    button.hidden = false;
    name();
    button.addEventListener("click", () => {
      theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      try {
        localStorage.setItem("whyops-theme", theme);
      } catch {
        // then the choice lasts until the page is left
      }
      apply(theme);
      name();
      // Canvases have no style sheet, so they are drawn again.
      document.dispatchEvent(new CustomEvent("whyops-theme"));
    });
  });
})();
