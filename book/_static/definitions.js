// The definition of a term beside the link to the glossary: under the mouse and the keyboard. A finger follows the link.
let shown = null, leaving = 0;

function hide() {
    clearTimeout(leaving);
    if (shown) shown.box.hidden = true;
    shown = null;
}

function place() {
    if (!shown) return;
    const link = shown.link.getClientRects()[0], box = shown.box;
    const fits = link.bottom + box.offsetHeight + 8 < innerHeight;
    box.style.left = `${Math.max(8, Math.min(link.left, innerWidth - box.offsetWidth - 8))}px`;
    box.style.top = `${fits ? link.bottom + 4 : link.top - box.offsetHeight - 4}px`;
}

function show(link, box) {
    hide();
    shown = {link, box};
    box.hidden = false;
    place();
}

function leave() {
    leaving = setTimeout(hide, 200);  // time to move the mouse into the box
}

for (const link of document.querySelectorAll('a[aria-describedby^="definition-"]')) {
    const box = document.getElementById(link.getAttribute("aria-describedby"));
    link.addEventListener("pointerenter", event => event.pointerType == "mouse" && show(link, box));
    link.addEventListener("pointerleave", leave);
    link.addEventListener("focus", () => link.matches(":focus-visible") && show(link, box));
    link.addEventListener("blur", hide);
    box.addEventListener("pointerenter", () => clearTimeout(leaving));
    box.addEventListener("pointerleave", leave);
}
document.addEventListener("keydown", event => event.key == "Escape" && hide());
addEventListener("scroll", place, {passive: true});
