/* The arrows that open a part of the contents have no text: say what they open. */

document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll("nav li > details > summary")) {
    const title = summary.closest("li").querySelector("a")?.textContent.trim();
    summary.setAttribute("aria-label", `The pages below ${title}`);
  }
  // Names of modules break at their dots.
  for (const link of document.querySelectorAll(".bd-sidebar-primary a.reference.internal")) {
    if (/^\s*sonibook\./.test(link.textContent)) link.innerHTML = link.innerHTML.replaceAll(/[._]/g, "$&<wbr>");
  }
});
