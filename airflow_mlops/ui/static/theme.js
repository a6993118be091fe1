// Light or dark, as Airflow's page around this frame is, and at once when it changes. On its own: as the system is.
// This runs before the first paint, so that a dark page never flashes white.
(() => {
  const own = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const outer = window.parent === window ? null : window.parent.document.documentElement;

  const follow = () => {
    const named = outer && ["dark", "light"].find((theme) => outer.classList.contains(theme));
    own.classList.toggle("dark", named ? named === "dark" : system.matches);
  };

  own.classList.toggle("framed", outer !== null);
  follow();
  system.addEventListener("change", follow);
  if (outer) {
    new MutationObserver(follow).observe(outer, { attributes: true, attributeFilter: ["class"] });
  }
})();
