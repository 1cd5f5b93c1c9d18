// Asks @sigstore/verify about bundles: a JSON list on stdin, {name: "good" | "bad"} on stdout.
'use strict';
const fs = require('fs');
const { createPublicKey } = require('crypto');
const { bundleFromJSON } = require('@sigstore/bundle');
const { TrustedRoot } = require('@sigstore/protobuf-specs');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');

const roots = {};
const answers = {};
for (const asked of JSON.parse(fs.readFileSync(0, 'utf8'))) {
  roots[asked.root] ??= TrustedRoot.fromJSON(JSON.parse(fs.readFileSync(asked.root, 'utf8')));
  try {
    const bundle = bundleFromJSON(JSON.parse(fs.readFileSync(asked.bundle, 'utf8')));
    const keys = asked.key && (() => ({ publicKey: createPublicKey(asked.key), validFor: () => true }));
    const verifier = new Verifier(toTrustMaterial(roots[asked.root], keys || undefined), asked.thresholds);
    const artifact = asked.artifact ? fs.readFileSync(asked.artifact) : undefined;
    const policy = asked.key ? undefined : { subjectAlternativeName: asked.subject };
    if (policy && asked.issuer) policy.extensions = { issuer: asked.issuer };
    verifier.verify(toSignedEntity(bundle, artifact), policy);
    answers[asked.name] = 'good';
  } catch (error) {
    if (process.env.EXPLAIN) console.error(asked.name, error.message);
    answers[asked.name] = 'bad';
  }
}
process.stdout.write(JSON.stringify(answers));
