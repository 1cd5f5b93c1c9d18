// Signs by @sigstore/sign against @sigstore/mock: a JSON list of what is wanted on stdin, bundles and whom to
// trust on stdout. Both are others' code, so that what is accepted is not only what `forge/` writes.
'use strict';
const fs = require('fs');
const http = require('http');
const crypto = require('crypto');
const { bundleToJSON } = require('@sigstore/bundle');
const mock = require('@sigstore/mock');
const {
  DSSEBundleBuilder, FulcioSigner, MessageSignatureBundleBuilder, RekorWitness, TSAWitness,
} = require('@sigstore/sign');

const pair = () => crypto.generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const spki = (keys) => keys.publicKey.export({ format: 'der', type: 'spki' }).toString('base64');
// In whole seconds, for the timestamps; later than the certificates that are made with the machine's clock.
const moment = new Date((Math.floor(Date.now() / 1000) + 3) * 1000);

// One Sigstore, on its own port.
async function instance(keys) {
  const certificateLog = await mock.initializeCTLog(keys.certificateLog, moment);
  const authority = await mock.initializeCA(keys.authority, certificateLog, moment);
  const stamps = await mock.initializeTSA(keys.stamps, moment);
  const handlers = [
    mock.fulcioHandler(authority, {}),
    mock.rekorHandler(await mock.initializeTLog('https://rekor.mock', keys.log, moment), {}),
    mock.tsaHandler(stamps, {}),
  ];
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', async () => {
      const handler = handlers.find((found) => found.path === request.url);
      const answer = await handler.fn(Buffer.concat(chunks).toString());
      response.writeHead(answer.statusCode, { 'Content-Type': answer.contentType || 'text/plain' });
      response.end(answer.response);
    });
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  return {
    server,
    url: `http://127.0.0.1:${server.address().port}`,
    trust: {
      authority: authority.rootCertificate.toString('base64'),
      certificateLog: spki(keys.certificateLog),
      log: spki(keys.log),
      stamps: [stamps.intCertificate, stamps.rootCertificate].map((found) => found.toString('base64')),
    },
  };
}

async function sign(wanted, url) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = { sub: wanted.subject, iss: wanted.issuer };
  const token = `${part({ alg: 'none' })}.${part(claims)}.`;
  const signer = new FulcioSigner({ fulcioBaseURL: url, identityProvider: { getToken: async () => token } });
  const witnesses = [];
  // Its entries of kind `dsse` are what was proposed, not what Rekor makes of that.
  if (wanted.logged) witnesses.push(new RekorWitness({ rekorBaseURL: url, entryType: 'intoto' }));
  if (wanted.stamped) witnesses.push(new TSAWitness({ tsaBaseURL: url }));
  const Builder = wanted.type ? DSSEBundleBuilder : MessageSignatureBundleBuilder;
  const data = Buffer.from(wanted.data, 'base64');
  const bundle = await new Builder({ signer, witnesses }).create({ data, type: wanted.type });
  return bundleToJSON(bundle);
}

async function main() {
  const keys = { authority: pair(), certificateLog: pair(), log: pair(), stamps: pair() };
  const own = await instance(keys);
  // In each of the others one key is a stranger's.
  const instances = {
    own,
    otherAuthority: await instance({ ...keys, authority: pair() }),
    otherCertificateLog: await instance({ ...keys, certificateLog: pair() }),
    otherLog: await instance({ ...keys, log: pair() }),
    otherStamps: await instance({ ...keys, stamps: pair() }),
  };
  const bundles = [];
  for (const wanted of JSON.parse(fs.readFileSync(0, 'utf8'))) {
    bundles.push(await sign(wanted, instances[wanted.instance].url));
  }
  Object.values(instances).forEach((found) => found.server.close());
  process.stdout.write(JSON.stringify({ moment: moment / 1000, trust: own.trust, bundles }));
}
main();
