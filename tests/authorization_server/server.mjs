// An OpenID-certified authorization server that is not ours, for the tests.
//
//   node server.mjs MODULES KEYS PORT    KEYS: a private JWK set; its first key signs
//
// Started again with another key set, it has rotated its keys.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [modules, keys, port] = process.argv.slice(2);
const { default: Provider } = await import(
  pathToFileURL(`${modules}/node_modules/oidc-provider/lib/index.js`)
);
const jwks = JSON.parse(readFileSync(keys));
const client = (client_id, scope) => ({
  client_id,
  scope,
  client_secret: `${client_id}-secret`,
  grant_types: ["client_credentials"],
  redirect_uris: [],
  response_types: [],
  id_token_signed_response_alg: jwks.keys[0].alg,
});
const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks,
  clients: [client("sms-north", "device entitlement read product"), client("help-desk", "read")],
  clientDefaults: { id_token_signed_response_alg: jwks.keys[0].alg },
  enabledJWA: { idTokenSigningAlgValues: ["ES256", "EdDSA", "RS256"] },
  scopes: ["device", "entitlement", "message", "product", "read"],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_context, audience) => ({
        audience,
        scope: "device entitlement message product read",
        accessTokenFormat: "jwt",
        accessTokenTTL: 600,
        jwt: { sign: { alg: jwks.keys[0].alg, kid: jwks.keys[0].kid } },
      }),
    },
  },
});
provider.use((context, next) => {
  if (context.path === "/jwks") console.error("keys fetched");
  return next();
});
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
