// Before the first paint: what was chosen last time. Its own file, since the policy allows no inline script.
document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "auto";
