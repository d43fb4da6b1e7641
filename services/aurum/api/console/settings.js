// What this browser remembers of its user's choices.

const DEFAULTS = { theme: "auto", language: "", sound: "off", operator: "" };

export function setting(name) {
  try {
    return localStorage.getItem(`aurum.${name}`) ?? DEFAULTS[name];
  } catch {
    return DEFAULTS[name]; // storage may be forbidden; then a choice lasts as long as the page
  }
}

export function remember(name, value) {
  DEFAULTS[name] = value;
  try {
    localStorage.setItem(`aurum.${name}`, value);
  } catch (error) {
    console.info(`the choice of ${name} lasts as long as this page: ${error.message}`);
  }
}
