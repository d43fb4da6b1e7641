// @ts-check
// The items of a list that the user has selected, one by one, as a range or all.

/** Returns an empty selection of ids. */
export function makeSelection() {
  /** @type {Set<string>} */
  const selected = new Set();
  /** @type {string | null} */
  let anchor = null; // where a range begins: the item that was selected last
  return {
    get size() {
      return selected.size;
    },
    /** @param {string} id */
    has: (id) => selected.has(id),
    ids: () => [...selected],
    /**
     * Selects an item, or no longer.
     * @param {string} id
     * @param {boolean} on
     */
    set(id, on) {
      if (on) selected.add(id);
      else selected.delete(id);
      anchor = id;
    },
    /**
     * Selects all items from the one that was selected last to this one.
     * @param {string} id
     * @param {string[]} order The ids in the order of the list.
     */
    extendTo(id, order) {
      const from = anchor === null ? -1 : order.indexOf(anchor);
      const to = order.indexOf(id);
      if (to < 0) return;
      const [first, last] = from < 0 ? [to, to] : [Math.min(from, to), Math.max(from, to)];
      for (const each of order.slice(first, last + 1)) selected.add(each);
      if (from < 0) anchor = id;
    },
    /** @param {string[]} ids */
    add(ids) {
      for (const id of ids) selected.add(id);
    },
    /** @param {string[]} ids */
    remove(ids) {
      for (const id of ids) selected.delete(id);
    },
    clear() {
      selected.clear();
      anchor = null;
    },
    /**
     * Keeps only those of these items that are selected.
     * @param {string[]} ids
     */
    keepOnly(ids) {
      const shown = new Set(ids);
      for (const id of selected) if (!shown.has(id)) selected.delete(id);
      if (anchor !== null && !shown.has(anchor)) anchor = null;
    },
  };
}
