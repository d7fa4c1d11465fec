// Decides, for each request, which group serves it. The route is one string in shared memory, so that a change is
// seen whole, by all workers at once, kept connections included:
//   0 weight|1 until|2 salt|3 stable revision|4 canary revision|5 cohort source|6 identity|7 mirror|8 prefixes|9 pattern|10 region header
// weight and mirror in basis points; until in milliseconds: what a weight below 100 % may still be served for (the agent's
// lease); cohort source "h:<header>" or "c:<cookie>", empty for no cohort; prefixes with commas between them. Members are
// keys "m|<identity>|<value>", regions keys "r|<identity>|<value>" with their weight.
// Who is pinned, allowed or denied does not change with the weight: nginx.conf says it ($canary_pin, $canary_listed).
// Hashing is left to split_clients, which does it in C: two buckets of a hundred make one number of 0..9999.

const FULL = 10000;
const LONGEST_VALUE = 64;

function current() {
    const text = ngx.shared.canary.get('route');
    // Empty after a restart of nginx, until the agent has pushed again: what it last wrote to disk, with its lease.
    return (text === undefined ? start.route : text).split('|');
}

function holds(f) {
    return Date.now() < +f[1];
}

function look(key) {
    const found = ngx.shared.canary.get(key);
    return found === undefined && start.members ? start.members[key] : found;
}

// A glob with * for anything: each piece at its first place behind the one before, so that the time is linear.
function like(text, pattern) {
    const pieces = pattern.toLowerCase().split('*');
    const last = pieces.length - 1;
    if (last === 0) {
        return text === pieces[0];
    }
    if (!text.startsWith(pieces[0])) {
        return false;
    }
    let at = pieces[0].length;
    for (let i = 1; i < last; i++) {
        const found = text.indexOf(pieces[i], at);
        if (found < 0) {
            return false;
        }
        at = found + pieces[i].length;
    }
    return text.length - at >= pieces[last].length && text.endsWith(pieces[last]);
}

// The cohort's name for this request; undefined when it is in none.
function member(v, r, f) {
    const name = f[5].slice(2);
    const given = f[5].charAt(0) === 'h' ? r.headersIn[name] : v['cookie_' + name];
    if (!given) {
        return undefined;
    }
    const value = given.toLowerCase();
    const found = value.length <= LONGEST_VALUE ? look('m|' + f[6] + '|' + value) : undefined;
    if (found !== undefined) {
        return found;
    }
    if (f[8]) {
        const prefix = f[8].split(',').find(function (one) { return value.startsWith(one.toLowerCase()); });
        if (prefix !== undefined) {
            return prefix;
        }
    }
    return f[9] && like(value, f[9]) ? 'pattern' : undefined;
}

function group(r) {
    const v = r.variables;
    const f = current();
    const weight = +f[0];
    v.canary_salt = f[2];
    v.canary_order = f[4];
    let chosen = 'stable', cohort;
    if (weight > 0 && (weight >= FULL || holds(f))) {
        const pin = v.canary_pin, listed = v.canary_listed;
        let share = weight;
        if (pin === 'stable') {
            cohort = 'pinned';
            share = 0;
        } else if (listed === 'denied') {
            cohort = 'denied';
            share = weight >= FULL ? FULL : 0;
        } else {
            cohort = pin ? 'pinned' : listed ? 'allowed' : f[5] ? member(v, r, f) : undefined;
            if (cohort !== undefined) {
                share = FULL;
            } else if (f[10]) {
                const region = r.headersIn[f[10]];
                const own = region && region.length <= LONGEST_VALUE ? look('r|' + f[6] + '|' + region.toLowerCase()) : undefined;
                if (own !== undefined) {
                    const parts = own.split('|');
                    share = weight >= FULL ? FULL : +parts[0];
                    cohort = parts[1];
                }
            }
        }
        if (share >= FULL || (share > 0 && +(v.canary_hi + v.canary_lo) < share)) {
            chosen = 'canary';
        }
    }
    if (cohort !== undefined) {
        v.canary_cohort = cohort;
    }
    v.canary_version = chosen === 'canary' ? f[4] : f[3];
    return chosen;
}

function direct(r, f, pool) {
    const v = r.variables;
    v.canary_salt = f[2];
    v.canary_order = f[4];
    v.canary_cohort = 'direct';
    v.canary_version = pool === 'canary' ? f[4] : f[3];
    return pool;
}

function directStable(r) {
    return direct(r, current(), 'stable');
}

function directCanary(r) {
    const f = current(), weight = +f[0];
    return direct(r, f, weight >= FULL || (weight > 0 && holds(f)) ? 'canary' : '');
}

// Whether this request is copied to the canary. Runs in the copy, which shares its variables with the request itself.
function mirror(r) {
    const f = current();
    return +f[7] > 0 && holds(f) && Math.random() * FULL < +f[7] ? '1' : '';
}

// GET: read back. PUT {"number": n, "route": …, "members": {key: value}}: members first, so that the route never names
// missing ones. Numbers rise, so that a push that was given up and arrives late cannot undo a newer one.
function control(r) {
    const zone = ngx.shared.canary;
    const ours = function (key) { return key.startsWith('m|') || key.startsWith('r|'); };
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
        const identity = wanted.route.split('|')[6];
        zone.keys().forEach(function (key) {
            if (ours(key) && key.split('|')[1] !== identity) {
                zone.delete(key);
            }
        });
    }
    r.return(200, JSON.stringify({generation: r.variables.canary_generation, route: zone.get('route') || '',
                                  number: +(zone.get('number') || 0), members: zone.keys().filter(ours).length}));
}

export default {group, directStable, directCanary, mirror, control};
