// Requests to the service's public API.

const TOKEN = "tansaku.token"; // kept for this tab alone

/** An answer that is an error; `status` 0 means that there was no answer. */
export class ApiError extends Error {
  constructor(status, message, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export function useToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

/** The content of an answer to a body of JSON, or to none.
 * Throws ApiError, or the AbortError of `signal`. */
export function call(method, path, body, signal) {
  if (body === undefined) return send(method, path, undefined, {}, signal);
  return send(method, path, JSON.stringify(body), { "Content-Type": "application/json" }, signal);
}

/** The content of an answer to any bytes. Throws as `call`. */
export async function send(method, path, body, headers, signal) {
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, String(error));
  }
  const content = await response.json().catch(() => ({}));
  if (response.ok) return content;
  throw new ApiError(response.status, content.message ?? content.detail ?? content.error ?? response.statusText,
    Number(response.headers.get("Retry-After")) || 0);
}
