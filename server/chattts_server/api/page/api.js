// Requests to this server, with the key if there is one, and what went wrong in words. Knows no element.

let key = sessionStorage.getItem("api-key") ?? "";

export function setKey(value) {
  key = value.trim();
  if (key) sessionStorage.setItem("api-key", key);
  else sessionStorage.removeItem("api-key");
}

export const hasKey = () => key !== "";

/** A failure that a person can act on. `status` 0: the server was not reached. */
export class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** fetch() that throws a Problem unless the answer is good. Paths are relative, so the page works behind any prefix. */
export async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server cannot be reached. Is it running, and are you connected?");
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

export const sendJson = (path, body, signal) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });

async function problemOf(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // Not from this server: a proxy's page, say. The status has to do.
  }
  return new Problem(inWords(response, error), response.status);
}

function inWords(response, { message = `it answered ${response.status}`, code, request_id }) {
  const wait = response.headers.get("retry-after");
  const later = wait ? `Try again in ${wait} s.` : "Try again in a moment.";
  const said = message.charAt(0).toUpperCase() + message.slice(1);
  switch (response.status) {
    case 401:
      return code === "missing_api_key" ? "This service wants an API key: enter it at the top." : "This API key is not accepted.";
    case 413:
      return `That is too large: ${message}.`;
    case 429:
      return `The server is full (${message}). ${later}`;
    case 503:
      return `The server cannot speak right now (${message}). ${later}`;
    case 504:
      return "It took too long, and the server gave up. Try again, or a shorter text.";
    default:
      if (response.status < 500) return `${said}.`;
      return `Something broke on the server: ${message}.` + (request_id ? ` Its log knows this as ${request_id}.` : "");
  }
}
