/* Predictions that stay in the browser and stand beside the result; quiz questions with feedback.

   Without this script both are text: a box "Predict"; a question, its numbered answers, and a folded
   box "Answers" with as many numbered words on them, of which one begins "Right". */

document.addEventListener("DOMContentLoaded", () => {
  const page = location.pathname.split("/").pop();
  const keyOf = (element) => `sonibook/${page}/${element.textContent.trim().replace(/\s+/g, " ").slice(0, 80)}`;
  // A browser may refuse to keep anything; then a page forgets, and does the rest.
  const read = (key) => { try { return localStorage.getItem(key) ?? ""; } catch { return ""; } };
  const keep = (key, text) => {
    try { if (text) localStorage.setItem(key, text); else localStorage.removeItem(key); } catch { /* forgotten */ }
  };
  const made = (name, properties) => Object.assign(document.createElement(name), properties);
  const titled = (...titles) => [...document.querySelectorAll(".admonition")].filter(
    (one) => titles.includes(one.querySelector(".admonition-title")?.textContent.trim()));
  const isPrediction = (box) => box.querySelector(".admonition-title").textContent.trim() === "Predict";
  const follows = (one, other) => one.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING;

  const boxes = titled("Predict", "Check");
  boxes.forEach((box, number) => {
    if (!isPrediction(box)) return;
    const key = keyOf(box.querySelector(":scope > p:not(.admonition-title)") ?? box);
    const label = made("label", { className: "prediction", textContent: "Your prediction" });
    const field = made("textarea", { rows: 2, value: read(key), placeholder: "Stays in this browser." });
    label.append(field);
    box.append(label);
    // Beside the result: in the box that comments on it, or below what the next cell shows.
    const said = made("blockquote", { className: "predicted" });
    const next = boxes[number + 1];
    if (next && !isPrediction(next)) next.querySelector(".admonition-title").after(said);
    else [...document.querySelectorAll(".cell_output")].find((output) => follows(box, output))?.after(said);
    const show = () => {
      said.hidden = !field.value.trim();
      said.textContent = `You predicted: ${field.value.trim()}`;
    };
    field.addEventListener("input", () => { keep(key, field.value); show(); });
    show();
  });

  for (const answers of titled("Answers")) {
    const list = answers.previousElementSibling, question = list?.previousElementSibling;
    const words = answers.querySelectorAll("ol > li");
    if (list?.tagName !== "OL" || list.children.length !== words.length) continue;
    const key = keyOf(question), feedback = made("p", { className: "feedback", role: "status" });
    answers.classList.add("answers");
    list.classList.add("choices");
    list.setAttribute("aria-label", question.textContent);
    const buttons = [...list.children].map((item, number) => {
      const button = made("button", { type: "button", innerHTML: (item.querySelector("p") ?? item).innerHTML });
      button.addEventListener("click", () => { keep(key, String(number + 1)); choose(number); });
      item.replaceChildren(button);
      return button;
    });
    const choose = (number) => {
      const right = words[number].textContent.trim().startsWith("Right");
      buttons.forEach((button, other) => {
        button.setAttribute("aria-pressed", String(other === number));
        button.className = other !== number ? "" : right ? "right" : "wrong";
      });
      feedback.innerHTML = (words[number].querySelector("p") ?? words[number]).innerHTML;
      feedback.hidden = false;
    };
    feedback.hidden = true;
    list.after(feedback);
    const chosen = Number(read(key)) - 1;
    if (buttons[chosen]) choose(chosen);
  }
});
