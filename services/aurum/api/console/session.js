// @ts-check
// Who uses this browser, and what the user may change.

import { request } from "./api.js";

/** @import { Session } from "./types.d.ts" */

/** @type {Session} */
let session = { asked: false, user_id: null, roles: [] };

/** Returns the session as last loaded. */
export const currentSession = () => session;

/**
 * Loads the session of this browser; `user_id` is null if nobody is signed in.
 * @returns {Promise<Session>}
 */
export async function loadSession() {
  session = await request("/api/session");
  return session;
}

/**
 * Returns whether the user may make a change. While that is unknown, it is assumed, since the API decides.
 * @param {string} change Method and template of the path, such as "POST /api/alarms/{alarm_id}/ack".
 */
export const mayMake = (change) => session.changes?.includes(change) ?? true;

/** Ends the session. */
export async function signOut() {
  await request("/api/session", { method: "DELETE" });
}
