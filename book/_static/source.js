// Light or dark as the reader has chosen in the book, else as the system is.
const chosen = localStorage.getItem("mode"), dark = matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.dataset.theme = ["light", "dark"].includes(chosen) ? chosen : dark ? "dark" : "light";
