// Swagger UI over the description that the service gives of itself.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#docs", validatorUrl: null });
