/* The arrows that open a part of the contents have no text: say what they open. */

document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll("nav li > details > summary")) {
    const title = summary.closest("li").querySelector("a")?.textContent.trim();
    summary.setAttribute("aria-label", `The pages below ${title}`);
  }
});
