// Shows the API's description with Swagger UI, where a browser can get that.

if (window.SwaggerUIBundle) window.SwaggerUIBundle({ url: "/openapi.json", dom_id: "#reference" });
