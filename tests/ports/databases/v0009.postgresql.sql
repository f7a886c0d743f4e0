CREATE FUNCTION public.audit_keeps() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = '23000'; END $$;
CREATE TABLE public.account (
    id text NOT NULL,
    name text NOT NULL,
    portal text,
    revision bigint NOT NULL,
    document bytea NOT NULL
);
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.audit (
    seq bigint NOT NULL,
    at bigint NOT NULL,
    who text NOT NULL,
    role text NOT NULL,
    what text NOT NULL,
    about text NOT NULL,
    address text NOT NULL,
    outcome text NOT NULL,
    detail text NOT NULL,
    hash text NOT NULL
);
CREATE TABLE public.audit_head (
    id bigint NOT NULL,
    seq bigint NOT NULL,
    hash text NOT NULL
);
CREATE TABLE public.awaited (
    device text NOT NULL,
    community text NOT NULL,
    profile text NOT NULL,
    until bigint NOT NULL,
    granted_at bigint,
    granted_to text NOT NULL,
    refused bigint NOT NULL,
    refused_at bigint,
    refused_from text NOT NULL,
    code text DEFAULT ''::text NOT NULL
);
CREATE TABLE public.call (
    id text NOT NULL,
    community text NOT NULL,
    place text NOT NULL,
    device text NOT NULL,
    at bigint NOT NULL,
    waited bigint NOT NULL,
    need text NOT NULL,
    said bytea,
    entered_at bigint
);
CREATE TABLE public.catalog (
    hash text NOT NULL,
    files bytea NOT NULL,
    first_at bigint NOT NULL
);
CREATE TABLE public.checkpoint (
    community text NOT NULL,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    version bigint NOT NULL,
    catalog text NOT NULL,
    state bytea NOT NULL
);
CREATE TABLE public.command (
    id text NOT NULL,
    community text NOT NULL,
    source text NOT NULL,
    device text NOT NULL,
    name text NOT NULL,
    incident text,
    state text NOT NULL,
    detail text NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    expires_at bigint NOT NULL
);
CREATE TABLE public.community (
    id text NOT NULL,
    serial bigint NOT NULL,
    name text NOT NULL,
    document bytea NOT NULL,
    epoch bigint NOT NULL,
    head bigint NOT NULL,
    claimed_at bigint NOT NULL
);
CREATE TABLE public.contact (
    id text NOT NULL,
    rank bigint NOT NULL,
    document bytea NOT NULL
);
CREATE TABLE public.credential (
    name text NOT NULL,
    hash text NOT NULL,
    issued_at bigint NOT NULL
);
CREATE TABLE public.cursor (
    community text NOT NULL,
    source text NOT NULL,
    spool text NOT NULL,
    lane text NOT NULL,
    contiguous bigint NOT NULL,
    above text NOT NULL,
    lost bigint NOT NULL
);
CREATE TABLE public.device (
    community text NOT NULL,
    id text NOT NULL,
    source text NOT NULL,
    profile text NOT NULL,
    place text NOT NULL,
    state text NOT NULL,
    document bytea NOT NULL
);
CREATE TABLE public.grid (
    code text NOT NULL,
    level text NOT NULL,
    name text NOT NULL,
    parent text
);
CREATE TABLE public.incident (
    id text NOT NULL,
    number text NOT NULL,
    community text NOT NULL,
    sort text NOT NULL,
    cause text NOT NULL,
    key text NOT NULL,
    category text NOT NULL,
    level text NOT NULL,
    place text NOT NULL,
    grid text NOT NULL,
    state text NOT NULL,
    is_open boolean NOT NULL,
    is_joinable boolean NOT NULL,
    opened_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    revision bigint NOT NULL,
    document bytea NOT NULL,
    "position" bigint DEFAULT '0'::bigint NOT NULL
);
CREATE TABLE public.journal (
    community text NOT NULL,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    kind text NOT NULL,
    source text NOT NULL,
    lane text NOT NULL,
    event_id text,
    digest bigint NOT NULL,
    catalog text NOT NULL,
    body bytea NOT NULL
);
CREATE TABLE public.meta (
    name text NOT NULL,
    value bigint NOT NULL
);
CREATE TABLE public.outbox (
    id text NOT NULL,
    community text NOT NULL,
    kind text NOT NULL,
    incident text,
    revision bigint NOT NULL,
    state text NOT NULL,
    attempts bigint NOT NULL,
    created_at bigint NOT NULL,
    due_at bigint NOT NULL,
    settled_at bigint,
    detail text NOT NULL,
    document bytea NOT NULL
);
CREATE TABLE public.product (
    profile text NOT NULL,
    created_at bigint NOT NULL,
    renewed_at bigint NOT NULL,
    earlier_until bigint,
    off_at bigint,
    secret bytea NOT NULL,
    earlier bytea,
    renewal text DEFAULT ''::text NOT NULL
);
CREATE TABLE public.quarantine (
    source text NOT NULL,
    community text NOT NULL,
    topic text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    digest text NOT NULL,
    length bigint NOT NULL,
    head text NOT NULL,
    count bigint NOT NULL,
    first_at bigint NOT NULL,
    last_at bigint NOT NULL
);
CREATE TABLE public.rejected (
    community text NOT NULL,
    source text NOT NULL,
    device text NOT NULL,
    reading text NOT NULL,
    reason text NOT NULL,
    value text NOT NULL,
    count bigint NOT NULL,
    first_at bigint NOT NULL,
    last_at bigint NOT NULL
);
CREATE TABLE public.responsible (
    body text NOT NULL,
    grid text NOT NULL,
    name text NOT NULL
);
CREATE TABLE public.rule_state (
    community text NOT NULL,
    rule text NOT NULL,
    key text NOT NULL,
    phase text NOT NULL,
    at bigint NOT NULL,
    since bigint NOT NULL,
    event text NOT NULL,
    note text NOT NULL,
    incident text
);
CREATE TABLE public.session (
    id text NOT NULL,
    account text NOT NULL,
    stage text NOT NULL,
    created_at bigint NOT NULL,
    seen_at bigint NOT NULL,
    address text NOT NULL,
    agent text NOT NULL,
    way text NOT NULL
);
CREATE TABLE public.source (
    community text NOT NULL,
    id text NOT NULL,
    is_online boolean NOT NULL,
    seen_at bigint NOT NULL,
    document bytea NOT NULL
);
CREATE TABLE public.timeline (
    incident text NOT NULL,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    who text NOT NULL,
    what text NOT NULL,
    why text NOT NULL,
    event text NOT NULL,
    device text NOT NULL,
    rule text NOT NULL,
    late boolean NOT NULL
);
CREATE TABLE public.token (
    id text NOT NULL,
    hash text NOT NULL,
    account text NOT NULL,
    created_at bigint NOT NULL,
    used_at bigint,
    document bytea NOT NULL
);
CREATE TABLE public.webhook (
    id text NOT NULL,
    created_at bigint NOT NULL,
    since bigint NOT NULL,
    off_at bigint,
    off_why text NOT NULL,
    failures bigint NOT NULL,
    failing_since bigint,
    ok_at bigint,
    renewal text NOT NULL,
    secret bytea NOT NULL,
    earlier bytea,
    earlier_until bigint,
    document bytea NOT NULL
);
CREATE TABLE public.webhook_case (
    incident text NOT NULL,
    is_open boolean NOT NULL,
    at bigint NOT NULL
);
CREATE TABLE public.webhook_delivery (
    webhook text NOT NULL,
    id text NOT NULL,
    kind text NOT NULL,
    incident text NOT NULL,
    seq bigint NOT NULL,
    state text NOT NULL,
    attempts bigint NOT NULL,
    created_at bigint NOT NULL,
    due_at bigint NOT NULL,
    settled_at bigint,
    outcome text NOT NULL,
    body bytea NOT NULL,
    again text DEFAULT ''::text NOT NULL
);
INSERT INTO public.account VALUES ('a1', 'li', 'P-1', 0, '\x7b226964223a226131222c226e616d65223a226c69222c227469746c65223a22e69d8ee4bc9f222c22726f6c65223a2264697370617463686572222c226772696473223a5b22333730323135225d2c22636f6d6d756e6974696573223a5b2263303031225d2c2270617373776f7264223a2268617368222c2270617373776f72645f6174223a313739353433353230303030302c22706f7274616c223a22502d31227d');
INSERT INTO public.alembic_version VALUES ('0009');
INSERT INTO public.audit VALUES (1, 1795435200000, 'cli:root', '', 'account.add', 'li', '', 'done', '', '058456dda694952062e974e478bfd3f38abfc23bc09a70ae7394a2e68d674b02');
INSERT INTO public.audit VALUES (2, 1795435200000, 'li', '', 'sign-in', 'li', '127.0.0.1', 'done', '', '4dabae3e9d8f07e6156f1fb79a885eddf2e81c01d9a8560686745e0b88c27875');
INSERT INTO public.audit VALUES (3, 1795435200000, 'li', '', 'token.add', 'li', '', 'done', '', '5f63a0f66a51fa949dd52ef038e80f4d05a1e91d5ab85ce51969d0526ff258c1');
INSERT INTO public.audit VALUES (4, 1795435200000, 'li', '', 'webhook.add', 'hook1', '', 'done', '', '05057cd8a42d1d0cc740cf6e34564ca99b8b17780e774b6d3968f5b78e67c69e');
INSERT INTO public.audit VALUES (5, 1795435200000, 'li', '', 'webhook.test', 'hook1', '', 'done', '', '49beea601c30e64c8e10447ba8328af8b6710978d2400d8474d5a2488b55179f');
INSERT INTO public.audit VALUES (6, 1795435200000, 'li', '', 'product.make', 'fixed-sos', '', 'done', '', '26552c598e9003cdf1db361a83cbe9f9e68223f55551e64a6b4f62bac0c05a01');
INSERT INTO public.audit_head VALUES (1, 6, '26552c598e9003cdf1db361a83cbe9f9e68223f55551e64a6b4f62bac0c05a01');
INSERT INTO public.awaited VALUES ('sn-7', 'c001', 'fixed-sos', 1795435200000, NULL, '', 0, NULL, '', 'sn-7');
INSERT INTO public.call VALUES ('page/1', 'c001', 'b1', 'page-c001-b1', 1795435200000, 1500, 'medical', '\x01517c32f0ed9ec3d285c4a5a97eef0ea6661039b08f5e392aced0ae401feaecab5243277ad246c63c2c6176aa47e3ea03a685c105c3a8d3834e25ed13ca9ecacb5928', NULL);
INSERT INTO public.catalog VALUES ('0123456789abcdef', '\x789cab562a2acd492dd64fcb2c4ad52fcecdcf4ed5ab4ccccd51b252ca4cb15278de3cff59cb7ca55a0018100f23', 1795435200000);
INSERT INTO public.checkpoint VALUES ('c001', 1, 1795435200000, 1, '0123456789abcdef', '\x78012b2e492c49050006840222');
INSERT INTO public.command VALUES ('command-1', 'c001', 'agent-c001', 'speaker-1', 'broadcast', '00000000-0000-5000-8000-000000000001', 'pending', '', 1795435200001, 1795435200001, 1795435260000);
INSERT INTO public.community VALUES ('c002', 2, '小区2', '\x7b226964223a2263303032222c2273657269616c223a322c226e616d65223a22e5b08fe58cba32227d', 0, 0, 0);
INSERT INTO public.community VALUES ('c003', 3, '小区3', '\x7b226964223a2263303033222c2273657269616c223a332c226e616d65223a22e5b08fe58cba33227d', 0, 0, 0);
INSERT INTO public.community VALUES ('c001', 1, '小区1', '\x7b226964223a2263303031222c2273657269616c223a312c226e616d65223a22e5b08fe58cba31227d', 1, 1, 1795435200000);
INSERT INTO public.contact VALUES ('duty-1', 0, '\x7b226964223a22647574792d31222c226e616d65223a22e580bce78fadefbc88e6a8a1e68b9fefbc89222c22726f6c65223a2264757479222c2267726964223a22333730323135222c2270686f6e65223a223030302d303030302d30303031222c2264757479223a5b7b2264617973223a5b302c315d2c22656e64223a3438307d5d7d');
INSERT INTO public.contact VALUES ('family-1', 1, '\x7b226964223a2266616d696c792d31222c226e616d65223a22e5aeb6e5b19eefbc88e6a8a1e68b9fefbc89222c22726f6c65223a2266616d696c79222c22636f6d6d756e697479223a2263303031222c22706c616365223a2262312d75312d313031222c2272616e6b223a312c2270686f6e65223a223030302d303030302d30303032227d');
INSERT INTO public.credential VALUES ('agent-c001', '$7$101$wrPBe0PLiEjPSPUD$IhcJxVX1s/f35LCYfPAGIWFjSuFjxI4Krllk8OjPK9FnyN4T8BGRJzp5u+N8GZYIP2Hl0lj3GsIfRvrSNyj8tA==', 1795435200000);
INSERT INTO public.cursor VALUES ('c001', 'agent-c001', 'k3f9', 'telemetry', 1, '', 0);
INSERT INTO public.device VALUES ('c001', 'smoke-1', 'agent-c001', 'nb-smoke', 'b01', 'active', '\x7b226964223a22736d6f6b652d31222c2270726f66696c65223a226e622d736d6f6b65222c22736f75726365223a226167656e742d63303031222c22706c616365223a22623031227d');
INSERT INTO public.grid VALUES ('370215', 'district', '即墨区', NULL);
INSERT INTO public.grid VALUES ('370215001', 'town', '环秀街道', '370215');
INSERT INTO public.incident VALUES ('00000000-0000-5000-8000-000000000001', 'JM20261123-001-0001', 'c001', 'incident', 'fire', 'c042-b03', 'ext:21-01', 'critical', 'c042-b03', '370215001004017', 'reported', true, true, 1795435200123, 1795435200123, 1, '\x7b226964223a2230303030303030302d303030302d353030302d383030302d303030303030303030303031222c226e756d626572223a224a4d32303236313132332d3030312d30303031222c22736f7274223a22696e636964656e74222c22636f6d6d756e697479223a2263303031222c226361757365223a2266697265222c226b6579223a22633034322d623033222c2263617465676f7279223a226578743a32312d3031222c226c6576656c223a22637269746963616c222c227469746c65223a7b227a68223a22e6b5b7e99fb5e88ab1e59bad33e58fb7e6a5bc20e7839fe6849fe68c81e7bbade68aa5e8ada6222c22656e223a22536d6f6b65207065727369737473227d2c22706c616365223a22633034322d623033222c22706c6163655f6e616d65223a22e6b5b7e99fb5e88ab1e59bad33e58fb7e6a5bc222c2267726964223a22333730323135303031303034303137222c22626f6479223a22e6b688e998b2e69591e68fb4e5a4a7e9989f222c2272756c65223a22666972652e736d6f6b652d7065727369737473222c226f70656e65645f6279223a226167656e742d3034322f6b3366392f616c61726d2f31372f30222c226f70656e65645f6174223a313739353433353230303132332c22757064617465645f6174223a313739353433353230303132332c227265766973696f6e223a312c227374617465223a227265706f72746564222c226a6f696e61626c65223a747275652c227369676e616c73223a312c2264657669636573223a5b22633034322d736d6f6b652d30303137225d2c226c6f6e223a3132302e3434372c226c6174223a33362e3338392c2274696d656c696e65223a5b7b22736571223a312c226174223a313739353433353230303132332c2277686f223a2272756c653a666972652e736d6f6b652d7065727369737473222c2277686174223a226f70656e6564222c226576656e74223a226167656e742d3034322f6b3366392f616c61726d2f31372f30222c22646576696365223a22633034322d736d6f6b652d30303137222c2272756c65223a22666972652e736d6f6b652d7065727369737473227d5d7d', 1);
INSERT INTO public.journal VALUES ('c001', 1, 1795435200001, 'delivery', 'agent-c001', 'telemetry', 'agent-c001/k3f9/alarm/1', 7919, '0123456789abcdef', '\x7b22736571223a20317d');
INSERT INTO public.meta VALUES ('position', 1);
INSERT INTO public.meta VALUES ('alive_at', 1795435200000);
INSERT INTO public.meta VALUES ('webhooks', 1);
INSERT INTO public.outbox VALUES ('00000000-0000-5000-8000-000000000001/1', 'c001', 'deliver', '00000000-0000-5000-8000-000000000001', 1, 'waiting', 0, 1795435200001, 1795435200001, NULL, '', '\x7b2274797065223a2264656c69766572222c226964223a2230303030303030302d303030302d353030302d383030302d3030303030303030303030312f31222c22696e636964656e74223a7b226964223a2230303030303030302d303030302d353030302d383030302d303030303030303030303031222c226e756d626572223a224a4d32303236313132332d3030312d30303031222c22736f7274223a22696e636964656e74222c22636f6d6d756e697479223a2263303031222c226361757365223a2266697265222c226b6579223a22633034322d623033222c2263617465676f7279223a226578743a32312d3031222c226c6576656c223a22637269746963616c222c227469746c65223a7b227a68223a22e6b5b7e99fb5e88ab1e59bad33e58fb7e6a5bc20e7839fe6849fe68c81e7bbade68aa5e8ada6222c22656e223a22536d6f6b65207065727369737473227d2c22706c616365223a22633034322d623033222c22706c6163655f6e616d65223a22e6b5b7e99fb5e88ab1e59bad33e58fb7e6a5bc222c2267726964223a22333730323135303031303034303137222c22626f6479223a22e6b688e998b2e69591e68fb4e5a4a7e9989f222c2272756c65223a22666972652e736d6f6b652d7065727369737473222c226f70656e65645f6279223a226167656e742d3034322f6b3366392f616c61726d2f31372f30222c226f70656e65645f6174223a313739353433353230303132332c22757064617465645f6174223a313739353433353230303132332c227265766973696f6e223a312c227374617465223a227265706f72746564222c226a6f696e61626c65223a747275652c227369676e616c73223a312c2264657669636573223a5b22633034322d736d6f6b652d30303137225d2c226c6f6e223a3132302e3434372c226c6174223a33362e3338392c2274696d656c696e65223a5b7b22736571223a312c226174223a313739353433353230303132332c2277686f223a2272756c653a666972652e736d6f6b652d7065727369737473222c2277686174223a226f70656e6564222c226576656e74223a226167656e742d3034322f6b3366392f616c61726d2f31372f30222c22646576696365223a22633034322d736d6f6b652d30303137222c2272756c65223a22666972652e736d6f6b652d7065727369737473227d5d7d7d');
INSERT INTO public.outbox VALUES ('command-1', 'c001', 'command', '00000000-0000-5000-8000-000000000001', 0, 'waiting', 0, 1795435200001, 1795435200001, NULL, '', '\x7b2274797065223a22636f6d6d616e64222c226964223a22636f6d6d616e642d31222c22636f6d6d756e697479223a2263303031222c22736f75726365223a226167656e742d63303031222c22646576696365223a22737065616b65722d31222c226e616d65223a2262726f616463617374222c2261726773223a7b2274657874223a22e58f91e78eb0e781abe68385227d2c22657870697265735f6174223a313739353433353236303030302c22696e636964656e74223a2230303030303030302d303030302d353030302d383030302d303030303030303030303031227d');
INSERT INTO public.product VALUES ('fixed-sos', 1795435200000, 1795435200000, NULL, NULL, '\x01424d9ffedfa0d240380b6920fb04eba45fa6b93ca3df712b1d8c9d0fbc5703b7a31b66d7', NULL, 'key');
INSERT INTO public.quarantine VALUES ('agent-c001', 'c001', 'sc/v1/c001/agent-c001/alarm', 'bad-envelope', 'no JSON', '6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b', 17, '�{garbage', 1, 1795435200001, 1795435200001);
INSERT INTO public.rejected VALUES ('c001', 'agent-c001', 'smoke-1', 'battery', 'out-of-range', '240', 1, 1795435200001, 1795435200001);
INSERT INTO public.responsible VALUES ('property', '370215001', '物业（模拟）');
INSERT INTO public.rule_state VALUES ('c001', 'fire.smoke-persists', 'smoke-1', 'firing', 1795435200000, 1795435200000, 'event-1', '', NULL);
INSERT INTO public.session VALUES ('s1', 'a1', 'full', 1795435200000, 1795435200000, '127.0.0.1', 'Firefox', 'password');
INSERT INTO public.timeline VALUES ('00000000-0000-5000-8000-000000000001', 1, 1795435200123, 'rule:fire.smoke-persists', 'opened', '', 'agent-042/k3f9/alarm/17/0', 'c042-smoke-0017', 'fire.smoke-persists', false);
INSERT INTO public.token VALUES ('t1', 'h1', 'a1', 1795435200000, NULL, '\x7b226964223a227431222c2268617368223a226831222c226163636f756e74223a226131222c227469746c65223a22e5a4a7e5b18f222c227065726d697373696f6e73223a5b22696e636964656e74732e736565225d2c22637265617465645f6174223a313739353433353230303030302c22657870697265735f6174223a313739353433353230313030307d');
INSERT INTO public.webhook VALUES ('hook1', 1795435200000, 1, NULL, '', 0, NULL, NULL, '', '\x01dfe0ec95a006dbca83b161d41f1a431ef9da05d9cc82a609ef51590f443e3058f2f51919', NULL, NULL, '\x7b227469746c65223a22e5a4a7e5b18f222c2275726c223a2268747470733a2f2f72656365697665722e746573742f61222c226b696e6473223a5b22696e636964656e742e6f70656e6564222c22696e636964656e742e6368616e676564222c22696e636964656e742e636c6f736564222c226e6f746963652e6f70656e6564222c226e6f746963652e6368616e676564222c226e6f746963652e636c6f736564225d2c226772696473223a5b22333730323135225d2c22636f6d6d756e6974696573223a5b2263303031225d2c226d6164655f6279223a226c69227d');
INSERT INTO public.webhook_case VALUES ('00000000-0000-5000-8000-000000000001', true, 1795435200000);
INSERT INTO public.webhook_delivery VALUES ('hook1', 'test/1', 'test', 'test/1', 1795435200000, 'waiting', 0, 1795435200000, 1795435200000, NULL, '', '\x7b227370656376657273696f6e223a22312e30222c226964223a22746573742f31222c22736f75726365223a222f67617465776179222c2274797065223a22636e2e6a696d6f2e676174657761792e746573742e7631222c227375626a656374223a22686f6f6b31222c2274696d65223a22323032362d31312d32335431323a30303a30302e3030305a222c2264617461636f6e74656e7474797065223a226170706c69636174696f6e2f6a736f6e222c2264617461223a7b22776562686f6f6b223a22686f6f6b31227d7d', '');
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.account
    ADD CONSTRAINT pk_account PRIMARY KEY (id);
ALTER TABLE ONLY public.audit
    ADD CONSTRAINT pk_audit PRIMARY KEY (seq);
ALTER TABLE ONLY public.audit_head
    ADD CONSTRAINT pk_audit_head PRIMARY KEY (id);
ALTER TABLE ONLY public.awaited
    ADD CONSTRAINT pk_awaited PRIMARY KEY (device);
ALTER TABLE ONLY public.call
    ADD CONSTRAINT pk_call PRIMARY KEY (id);
ALTER TABLE ONLY public.catalog
    ADD CONSTRAINT pk_catalog PRIMARY KEY (hash);
ALTER TABLE ONLY public.checkpoint
    ADD CONSTRAINT pk_checkpoint PRIMARY KEY (community, seq);
ALTER TABLE ONLY public.command
    ADD CONSTRAINT pk_command PRIMARY KEY (id);
ALTER TABLE ONLY public.community
    ADD CONSTRAINT pk_community PRIMARY KEY (id);
ALTER TABLE ONLY public.contact
    ADD CONSTRAINT pk_contact PRIMARY KEY (id);
ALTER TABLE ONLY public.credential
    ADD CONSTRAINT pk_credential PRIMARY KEY (name);
ALTER TABLE ONLY public.cursor
    ADD CONSTRAINT pk_cursor PRIMARY KEY (community, source, spool, lane);
ALTER TABLE ONLY public.device
    ADD CONSTRAINT pk_device PRIMARY KEY (community, id);
ALTER TABLE ONLY public.grid
    ADD CONSTRAINT pk_grid PRIMARY KEY (code);
ALTER TABLE ONLY public.incident
    ADD CONSTRAINT pk_incident PRIMARY KEY (id);
ALTER TABLE ONLY public.journal
    ADD CONSTRAINT pk_journal PRIMARY KEY (community, seq);
ALTER TABLE ONLY public.meta
    ADD CONSTRAINT pk_meta PRIMARY KEY (name);
ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT pk_outbox PRIMARY KEY (id);
ALTER TABLE ONLY public.product
    ADD CONSTRAINT pk_product PRIMARY KEY (profile);
ALTER TABLE ONLY public.quarantine
    ADD CONSTRAINT pk_quarantine PRIMARY KEY (source, reason, digest);
ALTER TABLE ONLY public.rejected
    ADD CONSTRAINT pk_rejected PRIMARY KEY (community, source, device, reading, reason);
ALTER TABLE ONLY public.responsible
    ADD CONSTRAINT pk_responsible PRIMARY KEY (body, grid);
ALTER TABLE ONLY public.rule_state
    ADD CONSTRAINT pk_rule_state PRIMARY KEY (community, rule, key);
ALTER TABLE ONLY public.session
    ADD CONSTRAINT pk_session PRIMARY KEY (id);
ALTER TABLE ONLY public.source
    ADD CONSTRAINT pk_source PRIMARY KEY (community, id);
ALTER TABLE ONLY public.timeline
    ADD CONSTRAINT pk_timeline PRIMARY KEY (incident, seq);
ALTER TABLE ONLY public.token
    ADD CONSTRAINT pk_token PRIMARY KEY (id);
ALTER TABLE ONLY public.webhook
    ADD CONSTRAINT pk_webhook PRIMARY KEY (id);
ALTER TABLE ONLY public.webhook_case
    ADD CONSTRAINT pk_webhook_case PRIMARY KEY (incident);
ALTER TABLE ONLY public.webhook_delivery
    ADD CONSTRAINT pk_webhook_delivery PRIMARY KEY (webhook, id);
ALTER TABLE ONLY public.account
    ADD CONSTRAINT uq_account_name UNIQUE (name);
ALTER TABLE ONLY public.account
    ADD CONSTRAINT uq_account_portal UNIQUE (portal);
ALTER TABLE ONLY public.community
    ADD CONSTRAINT uq_community_serial UNIQUE (serial);
ALTER TABLE ONLY public.incident
    ADD CONSTRAINT uq_incident_number UNIQUE (number);
ALTER TABLE ONLY public.token
    ADD CONSTRAINT uq_token_hash UNIQUE (hash);
CREATE UNIQUE INDEX ix_awaited_code ON public.awaited USING btree (code);
CREATE INDEX ix_awaited_refused ON public.awaited USING btree (community, refused_at);
CREATE INDEX ix_call_at ON public.call USING btree (at);
CREATE INDEX ix_command_sent ON public.command USING btree (expires_at) WHERE (state = 'sent'::text);
CREATE INDEX ix_device_id ON public.device USING btree (id);
CREATE INDEX ix_incident_heat ON public.incident USING btree (sort, opened_at, community, grid, place, category, level, number);
CREATE INDEX ix_incident_open ON public.incident USING btree (opened_at) WHERE is_open;
CREATE INDEX ix_incident_opened_at ON public.incident USING btree (opened_at);
CREATE INDEX ix_incident_position ON public.incident USING btree ("position");
CREATE INDEX ix_outbox_incident ON public.outbox USING btree (incident);
CREATE INDEX ix_outbox_waiting ON public.outbox USING btree (kind, due_at) WHERE (state = 'waiting'::text);
CREATE INDEX ix_session_account ON public.session USING btree (account);
CREATE INDEX ix_timeline_event ON public.timeline USING btree (event);
CREATE INDEX ix_token_account ON public.token USING btree (account);
CREATE INDEX ix_webhook_delivery_created ON public.webhook_delivery USING btree (webhook, created_at);
CREATE INDEX ix_webhook_delivery_due ON public.webhook_delivery USING btree (webhook, due_at, seq) WHERE (state = 'waiting'::text);
CREATE INDEX ix_webhook_delivery_incident ON public.webhook_delivery USING btree (webhook, incident, seq) WHERE (state = 'waiting'::text);
CREATE UNIQUE INDEX uq_incident_joinable ON public.incident USING btree (community, cause, key) WHERE is_joinable;
CREATE UNIQUE INDEX uq_journal_event_id ON public.journal USING btree (event_id) WHERE (event_id IS NOT NULL);
CREATE TRIGGER audit_keeps BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit FOR EACH STATEMENT EXECUTE FUNCTION public.audit_keeps();
ALTER TABLE ONLY public.awaited
    ADD CONSTRAINT fk_awaited_community FOREIGN KEY (community) REFERENCES public.community(id);
ALTER TABLE ONLY public.call
    ADD CONSTRAINT fk_call_community FOREIGN KEY (community) REFERENCES public.community(id);
ALTER TABLE ONLY public.checkpoint
    ADD CONSTRAINT fk_checkpoint_community FOREIGN KEY (community) REFERENCES public.community(id);
ALTER TABLE ONLY public.command
    ADD CONSTRAINT fk_command_community FOREIGN KEY (community) REFERENCES public.community(id);
ALTER TABLE ONLY public.device
    ADD CONSTRAINT fk_device_community FOREIGN KEY (community) REFERENCES public.community(id);
ALTER TABLE ONLY public.incident
    ADD CONSTRAINT fk_incident_community FOREIGN KEY (community) REFERENCES public.community(id);
ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT fk_outbox_community FOREIGN KEY (community) REFERENCES public.community(id);
ALTER TABLE ONLY public.rule_state
    ADD CONSTRAINT fk_rule_state_community FOREIGN KEY (community) REFERENCES public.community(id);
ALTER TABLE ONLY public.session
    ADD CONSTRAINT fk_session_account FOREIGN KEY (account) REFERENCES public.account(id);
ALTER TABLE ONLY public.source
    ADD CONSTRAINT fk_source_community FOREIGN KEY (community) REFERENCES public.community(id);
ALTER TABLE ONLY public.timeline
    ADD CONSTRAINT fk_timeline_incident FOREIGN KEY (incident) REFERENCES public.incident(id);
ALTER TABLE ONLY public.token
    ADD CONSTRAINT fk_token_account FOREIGN KEY (account) REFERENCES public.account(id);
ALTER TABLE ONLY public.webhook_delivery
    ADD CONSTRAINT fk_webhook_delivery_webhook FOREIGN KEY (webhook) REFERENCES public.webhook(id);
