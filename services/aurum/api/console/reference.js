// @ts-check
// Shows the description of the API with Swagger UI, if the browser could load it.

/** @type {{ SwaggerUIBundle?: (options: object) => void }} */ (/** @type {unknown} */ (window)).SwaggerUIBundle?.({
  url: "/openapi.json",
  dom_id: "#reference",
});
