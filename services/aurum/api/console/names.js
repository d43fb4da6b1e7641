// @ts-check
// The names that devices use, from the forms in which they are stored (aurum.readings.names): "Line_x0020_1" is "Line 1".
// Links and requests keep the stored form.

const IN_MACHINE = /(?:_|^)x([0-9A-F]{4,6})_/g;
const IN_SENSOR = /_x([0-9A-F]{4,6})_/g;
const HIDDEN = /[\p{C}\p{Zl}\p{Zp}]/u; // such as line ends and marks of direction, which would mislead if shown

/**
 * @param {string} sequence
 * @param {string} code
 */
function characterOf(sequence, code) {
  const point = Number.parseInt(code, 16);
  if (point > 0x10ffff) return sequence;
  const character = String.fromCodePoint(point);
  return HIDDEN.test(character) ? sequence : character;
}

/**
 * Returns the name of a machine, as its device has it.
 * @param {string} machineId
 */
export const originalMachine = (machineId) => machineId.replace(IN_MACHINE, characterOf);

/**
 * Returns the name of a sensor, as its device has it.
 * @param {string} sensor
 */
export const originalSensor = (sensor) => sensor.replace(IN_SENSOR, characterOf);

/**
 * Returns a stored machine id as a hint beside the name that is shown; undefined if both are the same.
 * @param {string} machineId
 */
export const storedHint = (machineId) => (originalMachine(machineId) === machineId ? undefined : machineId);
