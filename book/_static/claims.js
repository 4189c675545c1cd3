/* Chapter 17: its claims, filtered by verdict and by chapter. Without this script all are shown. */

document.addEventListener("DOMContentLoaded", () => {
  const words = (element) => element.textContent.replace(/\s+/g, " ").trim();
  const plain = (element) => words(element).replace(/\W/g, ""); // quotation marks may be drawn curly
  const made = (name, properties) => Object.assign(document.createElement(name), properties);
  const names = ["Verdict", "Chapter"], asked = { Verdict: "", Chapter: "" };
  const head = [...document.querySelectorAll("table.results thead tr")].find(
    ({ textContent }) => /^Claim.*Verdict.*Chapter$/.test(textContent));
  if (!head) return;
  const [says, verdict, chapter] = ["Claim", ...names].map((name) => [...head.cells].map(words).indexOf(name));
  const claims = [...head.closest("table").tBodies[0].rows].map((row) => ({
    says: plain(row.cells[says]), Verdict: words(row.cells[verdict]).split(" (")[0],
    Chapter: words(row.cells[chapter]), parts: [row],
  }));
  // What is said of each claim further down: a paragraph that begins with it, and what follows.
  for (const output of document.querySelectorAll(".cell_output")) {
    let current;
    for (const part of output.children) {
      const bold = part.querySelector(":scope > strong:first-child");
      if (bold) current = claims.find((claim) => claim.says === plain(bold)) ?? current;
      current?.parts.push(part);
    }
  }
  const outputs = new Set(claims.flatMap(({ parts }) => parts.map((part) => part.closest(".cell_output"))));
  const left = (but) => claims.filter((claim) => names.every(
    (name) => name === but || !asked[name] || claim[name] === asked[name]));
  const bars = [...outputs].map((output, number) => {
    const bar = made("div", { className: "explorer-bar claims-bar", role: "group", ariaLabel: "Filter the claims" });
    const selects = names.map((name) => {
      const label = bar.appendChild(made("label", { textContent: name }));
      const select = made("select", { onchange: () => { asked[name] = select.value; show(); } });
      return label.appendChild(select);
    });
    const count = bar.appendChild(made("span", { role: number ? null : "status" })); // said once
    output.prepend(bar);
    return { selects, count };
  });
  function show() {
    const shown = left();
    for (const claim of claims) for (const part of claim.parts) part.hidden = !shown.includes(claim);
    for (const { selects, count } of bars) {
      names.forEach((name, number) => {
        const values = [...new Set(claims.map((claim) => claim[name]))].sort((a, b) => a - b);
        const options = ["", ...values].map((value) => new Option(
          `${value || "all"} (${left(name).filter((one) => !value || one[name] === value).length})`, value));
        selects[number].replaceChildren(...options);
        selects[number].value = asked[name];
      });
      count.textContent = `${shown.length} of ${claims.length} claims`;
    }
  }
  show();
});
