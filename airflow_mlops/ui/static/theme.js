// Light or dark, as Airflow's page around this frame is, and at once when it changes. On its own: as the system is.
// This runs before the first paint, so that a dark page never flashes white.
(() => {
  const own = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const outer = window.parent === window ? null : window.parent.document;

  const follow = () => {
    const named = outer && ["dark", "light"].find((theme) => outer.documentElement.classList.contains(theme));
    own.classList.toggle("dark", named ? named === "dark" : system.matches);
    const ground = outer && getComputedStyle(outer.body).backgroundColor;
    if (ground && ground !== "rgba(0, 0, 0, 0)") {
      own.style.setProperty("--ground", ground);
    }
  };

  follow();
  system.addEventListener("change", follow);
  if (outer) {
    new MutationObserver(follow).observe(outer.documentElement, { attributes: true, attributeFilter: ["class"] });
  }
})();
