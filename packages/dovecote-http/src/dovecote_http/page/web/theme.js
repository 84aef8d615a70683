// The theme before anything is painted: the one chosen here earlier, else the system's.
"use strict";
try {
  const chosen = localStorage.getItem("dovecote-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing follows the system.
}
