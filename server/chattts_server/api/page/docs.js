// The API as a page, from openapi.json: every operation, its fields and their limits. Knows OpenAPI, not the API.

const LIMITS = { minimum: "≥", exclusiveMinimum: ">", maximum: "≤", exclusiveMaximum: "<", minLength: "length ≥", maxLength: "length ≤", pattern: "matches" };

async function main() {
  try {
    const document_ = await (await fetch("openapi.json")).json();
    const operations = Object.entries(document_.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => section(method, path, operation, document_)),
    );
    find("operations").replaceChildren(...operations);
  } catch (error) {
    find("error").textContent = `The description cannot be read: ${error.message}`;
    find("error").hidden = false;
  }
  find("operations").removeAttribute("aria-busy");
}

function section(method, path, operation, root) {
  const id = `${method}-${path}`;
  const title = make("h2", {}, make("code", {}, `${method.toUpperCase()} ${path}`));
  title.id = id;
  const element = make("section", { "aria-labelledby": id }, title);
  if (operation.summary) element.append(make("p", {}, operation.summary));
  if (operation.description) element.append(make("p", { class: "hint" }, operation.description));
  const parameters = (operation.parameters ?? []).map((one) => [one.name, one.schema ?? {}, one.required]);
  if (parameters.length > 0) element.append(table(`In the ${operation.parameters[0].in}`, parameters, root));
  for (const [type, { schema }] of Object.entries(operation.requestBody?.content ?? {})) {
    const body = followed(schema, root);
    const fields = Object.entries(body.properties ?? {}).map(([name, one]) => [name, one, (body.required ?? []).includes(name)]);
    if (fields.length > 0) element.append(table(type, fields, root));
  }
  return element;
}

function table(caption, rows, root) {
  const head = make("tr", {}, ...["Field", "Type", "Default", "Rules"].map((name) => make("th", { scope: "col" }, name)));
  const body = rows.map(([name, schema, required]) => row(name, schema, required, root));
  return make("div", { class: "scroll" }, make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...body)));
}

function row(name, schema, required, root) {
  const one = followed(schema, root);
  const choices = [one, ...(one.anyOf ?? [])].map((choice) => followed(choice, root));
  const type = [...new Set(choices.map(({ type, enum: values, const: only }) => values?.join(", ") ?? only ?? type).filter(Boolean))];
  const rules = choices.flatMap((choice) => Object.entries(LIMITS).filter(([key]) => key in choice).map(([key, words]) => `${words} ${choice[key]}`));
  const standard = required ? "required" : "default" in one && one.default !== null ? String(one.default) : "–";
  const cells = [type.filter((word) => word !== "null").join(" or "), standard, [one.description, ...rules].filter(Boolean).join("; ")];
  return make("tr", {}, make("th", { scope: "row" }, make("code", {}, name)), ...cells.map((text) => make("td", {}, text)));
}

function followed(schema, root) {
  if (!schema?.$ref) return schema ?? {};
  return followed(schema.$ref.split("/").slice(1).reduce((at, key) => at[key], root), root);
}

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function find(id) {
  return document.getElementById(id);
}

main();
