// Decides, for each request, which group serves it. The route is one string in shared memory, so that a change is
// seen whole, by all workers at once, kept connections included:
//   weight|until|salt|stable revision|canary revision|cohort source|identity
// weight in basis points; until in milliseconds: what a weight below 100 % may still be served for (the agent's lease);
// cohort source "h:<header>" or "c:<cookie>", empty for no cohort. Its members are keys "m|<identity>|<value>".
// Hashing is left to split_clients, which does it in C: two buckets of a hundred make one number of 0..9999.

const FULL = 10000;
const LONGEST_VALUE = 64;

function current() {
    const text = ngx.shared.canary.get('route');
    // Empty after a restart of nginx, until the agent has pushed again: what it last wrote to disk, with its lease.
    return text === undefined ? start.route : text;
}

function member(v, r, source, identity) {
    const name = source.slice(2);
    const value = source.charAt(0) === 'h' ? r.headersIn[name] : v['cookie_' + name];
    if (!value || value.length > LONGEST_VALUE) {
        return undefined;
    }
    const key = 'm|' + identity + '|' + value.toLowerCase();
    const found = ngx.shared.canary.get(key);
    return found === undefined && start.members ? start.members[key] : found;
}

function group(r) {
    const v = r.variables;
    const f = current().split('|');
    const weight = +f[0];
    let chosen = 'stable', cohort;
    if (weight > 0 && (weight >= FULL || Date.now() < +f[1])) {
        if (f[5]) {
            cohort = member(v, r, f[5], f[6]);
        }
        if (cohort !== undefined || weight >= FULL) {
            chosen = 'canary';
        } else {
            v.canary_salt = f[2];
            if (+(v.canary_hi + v.canary_lo) < weight) {
                chosen = 'canary';
            }
        }
    }
    if (cohort !== undefined) {
        v.canary_cohort = cohort;
    }
    v.canary_version = chosen === 'canary' ? f[4] : f[3];
    return chosen;
}

// GET: read back. PUT {"number": n, "route": …, "members": {key: value}}: members first, so that the route never names
// missing ones. Numbers rise, so that a push that was given up and arrives late cannot undo a newer one.
function control(r) {
    const zone = ngx.shared.canary;
    if (r.method === 'PUT') {
        const wanted = JSON.parse(r.requestText);
        if (wanted.number <= +(zone.get('number') || 0)) {
            r.return(409, 'older than what is served');
            return;
        }
        for (const key in wanted.members) {
            zone.set(key, wanted.members[key]);
        }
        zone.set('number', '' + wanted.number);
        zone.set('route', wanted.route);
        const prefix = 'm|' + wanted.route.split('|')[6] + '|';
        zone.keys().forEach(function (key) {
            if (key.startsWith('m|') && !key.startsWith(prefix)) {
                zone.delete(key);
            }
        });
    }
    const members = zone.keys().filter(function (key) { return key.startsWith('m|'); });
    r.return(200, JSON.stringify({generation: r.variables.canary_generation, route: zone.get('route') || '',
                                  number: +(zone.get('number') || 0), members: members.length}));
}

export default {group, control};
