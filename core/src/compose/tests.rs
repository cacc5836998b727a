use super::*;
use crate::compose::command::split;
use crate::compose::interpolate::Variables;

fn environment() -> BTreeMap<String, String> {
    [("TAG", "1.2"), ("EMPTY", ""), ("N", "3")].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn overrides() -> Overrides {
    Overrides { directory: "/srv/My Shop.2".into(), ..Overrides::default() }
}

fn good(text: &str) -> Project {
    read("compose.yaml", text, &environment(), &overrides()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn bad(text: &str) -> String {
    read("compose.yaml", text, &environment(), &overrides()).unwrap_err().to_string()
}

/// One service `web` with these keys.
fn web(keys: &str) -> Service {
    let keys = keys.replace('\n', "\n    ");
    let project = good(&format!("services:\n  web:\n    image: web\n    {keys}\n"));
    project.services.values().next().unwrap().clone()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn variables_are_filled_in() {
    let values = environment();
    let check = |text: &str, expected: Option<&str>| {
        let filled = Variables { values: &values, kept: &["HOST", "PORT"] }.fill(text);
        assert_eq!(filled.as_deref().ok(), expected, "{text}");
    };
    check("plain", Some("plain"));
    check("$TAG.$EMPTY-${TAG}", Some("1.2.-1.2"));
    check("$$TAG $${TAG} $$", Some("$TAG ${TAG} $"));
    check("$NOBODY|${NOBODY}|", Some("||"));
    check("${NOBODY:-d} ${EMPTY:-d} ${EMPTY-d} ${TAG:-d} ${NOBODY-d}", Some("d d  1.2 d"));
    check("${NOBODY:-${TAG:-x}}/${NOBODY:-a$TAG}", Some("1.2/a1.2"));
    check("${TAG:+yes}${EMPTY:+yes}${EMPTY+set}${NOBODY+set}", Some("yesset"));
    check("${TAG:?wanted} ${EMPTY?wanted}", Some("1.2 "));
    check("${NOBODY:-a:b-c?d}", Some("a:b-c?d"));
    check("${HOST}:$PORT ${HOSTS:-no}", Some("${HOST}:${PORT} no"));
    for wrong in ["$", "a $ b", "${", "${TAG", "${}", "${1A}", "${TAG!x}", "${TAG:}", "$1", "${EMPTY:?}", "${NOBODY?x}"]
    {
        check(wrong, None);
    }
    let deep = "${A:-".repeat(40) + &"}".repeat(40);
    check(&deep, None);
    let error = Variables { values: &values, kept: &[] }.fill("${NOBODY:?set it to a $TAG}").unwrap_err().to_string();
    assert_eq!(error, "needs the variable NOBODY: set it to a 1.2");
}

#[test]
fn command_lines_are_split_as_a_shell_does() {
    let check = |text: &str, expected: Option<&[&str]>| {
        assert_eq!(split(text).ok(), expected.map(texts), "{text}");
    };
    check("nginx -g 'daemon off;'", Some(&["nginx", "-g", "daemon off;"]));
    check(r#"a "b \"c\" \n" d\ e '' f"g"h"#, Some(&["a", r#"b "c" \n"#, "d e", "", "fgh"]));
    check("  a\n\tb  ", Some(&["a", "b"]));
    check("", Some(&[]));
    check("a \\\nb", Some(&["a", "b"]));
    for wrong in ["'a", "\"a", "a \\", "\"a\\"] {
        check(wrong, None);
    }
}

#[test]
fn projects_are_named_as_compose_names_them() {
    let check = |text: &str, expected: Option<&str>| {
        assert_eq!(normalise_project_name(text).ok().as_ref().map(Name::as_str), expected, "{text}");
    };
    check("My Shop.2", Some("myshop2"));
    check("_-a_b-", Some("a_b"));
    check("...", None);
    assert_eq!(good("services: {a: {image: a}}").name.as_str(), "myshop2");
    assert_eq!(good("name: other\nservices: {a: {image: a}}").name.as_str(), "other");
    let given = Overrides { project_name: Some("flag".to_owned()), ..overrides() };
    let project = read("f", "name: other\nservices: {a: {image: a}}", &environment(), &given).unwrap();
    assert_eq!(project.name.as_str(), "flag");
    let values = BTreeMap::from([("COMPOSE_PROJECT_NAME".to_owned(), "env".to_owned())]);
    let project = read("f", "name: other\nservices: {a: {image: a}}", &values, &overrides()).unwrap();
    assert_eq!(project.name.as_str(), "env");
}

#[test]
fn a_whole_file_is_read() {
    let project = good(
        "
version: '3.9'
x-anything: { a: 1 }
networks:
  back: { name: shared, external: true }
  front: { labels: [tier=1] }
services:
  web:
    image: shop/web:${TAG}
    command: serve --port 8080 'a b'
    entrypoint: [/bin/run, $EMPTY]
    environment: [A=1, 'B=x=y', TAG, NOBODY]
    labels: { mesh.weight: 20, note: }
    networks: { front: { aliases: [www] }, back: }
    expose: [8080, '9000-9001', 53/udp]
    ports: ['127.0.0.1:80:8080', '8443:443', { target: 1, published: '2', protocol: udp }]
    depends_on: { db: { condition: service_healthy } }
    deploy: { replicas: $N, labels: { a: b } }
    stop_signal: SIGINT
    stop_grace_period: 1m30s
    restart: unless-stopped
    volumes: [./data:/data:ro, { type: bind, source: /etc, target: /e }]
    x-mine: 5
  db:
    image: db
    environment: { A: 1, B: true, C: null, TAG: null }
    healthcheck: { test: [CMD, check, '1'], interval: 5s, retries: 2 }
",
    );
    let web = &project.services[&name("web")];
    assert_eq!(web.image.as_deref(), Some("shop/web:1.2"));
    assert_eq!(web.command, Some(texts(&["serve", "--port", "8080", "a b"])));
    assert_eq!(web.entrypoint, Some(texts(&["/bin/run", ""])));
    let pairs: Vec<_> = web.environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(pairs, ["A=1", "B=x=y", "TAG=1.2"]);
    assert_eq!((web.labels["mesh.weight"].as_str(), web.labels["note"].as_str()), ("20", ""));
    assert_eq!(web.networks["front"].aliases, ["www"]);
    let ports: Vec<u16> = web.service_ports.iter().map(|port| port.port).collect();
    assert_eq!(ports, [443, 8080, 9000, 9001]);
    assert_eq!(web.published_ports[0].host_ip.as_deref(), Some("127.0.0.1"));
    assert_eq!((web.published_ports[1].published, web.published_ports[1].target), (Some(8443), 443));
    assert_eq!((web.replicas, web.restart), (3, Restart::Always));
    assert_eq!((web.stop_signal.as_deref(), web.stop_grace_period), (Some("SIGINT"), Duration::from_secs(90)));
    assert_eq!(web.depends_on[&name("db")].condition, DependencyCondition::ServiceHealthy);
    let volume =
        |source: &str, target: &str, read_only| Volume { source: source.into(), target: target.into(), read_only };
    assert_eq!(web.volumes, [volume("/srv/My Shop.2/./data", "/data", true), volume("/etc", "/e", false)]);
    let db = &project.services[&name("db")];
    let pairs: Vec<_> = db.environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(pairs, ["A=1", "B=true", "TAG=1.2"]);
    assert!(
        matches!(&db.healthcheck, Some(Healthcheck::Enabled { test: Some(HealthTest::Exec(words)), retries: Some(2), .. })
        if *words == ["check", "1"])
    );
    let networks: Vec<_> = project.networks.iter().map(|(key, n)| format!("{key}={} {}", n.name, n.external)).collect();
    assert_eq!(networks, ["back=shared true", "default=myshop2_default false", "front=myshop2_front false"]);
    let json = serde_json::to_string(&project).unwrap();
    assert_eq!(serde_json::from_str::<Project>(&json).unwrap(), project, "it travels as JSON");
}

#[test]
fn single_keys_are_read_in_each_of_their_forms() {
    assert_eq!(web("depends_on: []\nscale: 2").replicas, 2);
    assert_eq!(web("deploy: { replicas: 0 }").replicas, 0);
    assert_eq!(web("healthcheck: { disable: true }").healthcheck, Some(Healthcheck::Disabled));
    assert_eq!(web("healthcheck: { test: [NONE] }").healthcheck, Some(Healthcheck::Disabled));
    let shell = |healthcheck: Option<Healthcheck>| match healthcheck {
        Some(Healthcheck::Enabled { test: Some(HealthTest::Shell(line)), .. }) => line,
        other => panic!("{other:?}"),
    };
    assert_eq!(shell(web("healthcheck: { test: 'a b' }").healthcheck), "a b");
    assert_eq!(shell(web("healthcheck: { test: [CMD-SHELL, 'a b'] }").healthcheck), "a b");
    assert_eq!(web("restart: 'no'").restart, Restart::No);
    assert_eq!(web("restart: on-failure").restart, Restart::OnFailure);
    let ports = |keys: &str| {
        web(keys).service_ports.iter().map(|p| format!("{}:{}:{}", p.name, p.port, p.protocol)).collect::<Vec<_>>()
    };
    assert_eq!(ports("expose: [80]\nlabels: { mesh.port: '90', mesh.protocol: grpc }"), ["90:90:grpc"]);
    let labels = "labels: { mesh.ports.web.port: 90, mesh.ports.web.protocol: http, mesh.ports.raw.port: 91 }";
    assert_eq!(ports(labels), ["web:90:http", "raw:91:auto"]);
    assert_eq!(ports("ports: ['8000-8001:80-81', 82]"), ["80:80:auto", "81:81:auto", "82:82:auto"]);
}

#[test]
fn processes_keep_host_and_port_for_each_replica() {
    let text = "
x-mesh: { runtime: process }
services:
  web: { command: './web ${HOST}:$PORT $TAG', healthcheck: { test: 'check ${PORT}' }, environment: { P: 'x${PORT}' } }
  box: { image: 'box:${PORT:-1}', command: 'run ${PORT:-2}', x-mesh: { runtime: docker } }
";
    let project = good(text);
    let web = &project.services[&name("web")];
    assert_eq!(web.runtime, RuntimeKind::Process);
    assert_eq!(web.command, Some(texts(&["./web", "${HOST}:${PORT}", "1.2"])));
    assert_eq!(web.environment["P"], "x");
    let container = &project.services[&name("box")];
    assert_eq!((container.runtime, container.image.as_deref()), (RuntimeKind::Docker, Some("box:1")));
    assert_eq!(container.command, Some(texts(&["run", "2"])));
    let given = Overrides { runtime: Some(RuntimeKind::Process), ..overrides() };
    let project = read("f", "services: { a: { image: a, command: 'run ${PORT}' } }", &environment(), &given).unwrap();
    let service = &project.services[&name("a")];
    assert_eq!((service.runtime, service.command.clone()), (RuntimeKind::Process, Some(texts(&["run", "${PORT}"]))));
}

#[test]
fn every_key_that_is_not_acted_on_is_named_at_once() {
    let text = "
volumes: { data: }
servics: {}
services:
  web:
    image: web
    build: .
    enviroment: { A: 1 }
    zzzzzzzzzz: 1
    deploy: { resources: { limits: { cpus: '1' } }, replica: 2 }
    healthcheck: { test: 'true', intervall: 5s }
    x-mseh: { runtime: process }
    networks: { default: { ipv4_address: 10.0.0.5 } }
";
    let found = bad(text);
    for (key, wanted) in [
        ("volumes", "is not supported yet"),
        ("servics", "is not a Compose key; did you mean services?"),
        ("services.web.build", "is not supported yet"),
        ("services.web.enviroment", "is not a Compose key; did you mean environment?"),
        ("services.web.zzzzzzzzzz", "is not a Compose key; supported here are"),
        ("services.web.deploy.resources", "is not supported yet"),
        ("services.web.deploy.replica", "is not a Compose key; did you mean replicas?"),
        ("services.web.healthcheck.intervall", "is not a Compose key; did you mean interval?"),
        ("services.web.x-mseh", "is not a Compose key; did you mean x-mesh?"),
        ("services.web.networks.default.ipv4_address", "is not supported yet"),
    ] {
        let line = format!("compose.yaml: {key}: {wanted}");
        assert!(found.lines().any(|found| found.starts_with(&line)), "{line}\nis not in\n{found}");
    }
    assert_eq!(found.lines().count(), 10, "{found}");
}

#[test]
fn wrong_values_are_told_with_what_would_be_right() {
    let check = |keys: &str, expected: &str| {
        let keys = keys.replace('\n', "\n    ");
        let found = bad(&format!("services:\n  web:\n    image: web\n    {keys}\n"));
        assert!(found.contains(expected), "{keys}: {expected}\nis not in\n{found}");
        assert_eq!(found.lines().count(), 1, "{found}");
    };
    check("user: ${NOBODY:?no user}", "services.web.user: \"${NOBODY:?no user}\": needs the variable NOBODY: no user");
    check("command: \"a 'b\"", "services.web.command: \"a 'b\": has a ' that is not closed");
    check("deploy: { replicas: many }", "services.web.deploy.replicas: \"many\": a whole number is wanted");
    check("deploy: { replicas: 5000 }", "services.web.deploy.replicas: is 5000; at most 1000 are run");
    check("scale: 2\ndeploy: { replicas: 3 }", "services.web.scale: 2: contradicts deploy.replicas, which says 3");
    check("stop_grace_period: 5", "services.web.stop_grace_period: 5: a duration such as 500ms");
    check("restart: allways", "did you mean always?");
    check("networks: [back]", "services.web.networks.back: is not declared under the top-level networks");
    check("depends_on: [db]", "services.web.depends_on.db: is not a service of this file");
    check("depends_on: [web]", "goes round in a ring: web -> web");
    check("healthcheck: { test: [RUN, a] }", r#"["CMD", word, …]"#);
    check("volumes: ['data:/data']", "named and anonymous volumes are not supported yet");
    check("expose: [http]", "a port such as 8080, 8000-8010 or 8080/tcp is wanted");
    check("expose: [9-8]", "a port such as 8080");
    check("ports: ['1:2:3:4']", "a port such as 8080, 8080:80");
    check("ports: ['80-81:80']", "a port such as 8080, 8080:80");
    check("labels: { mesh.port: http }", "services.web.labels.mesh.port: \"http\": a port from 1 to 65535 is wanted");
    check("labels: { mesh.port: '80', mesh.protocol: htp }", "one of auto, http, http2, grpc, tcp is wanted");
    check("x-mesh: { runtime: proces }\ncommand: a", "did you mean process?");
    check("deploy: { mode: global }", "one of replicated is wanted");
    check("environment: 5", "a mapping, or a list of NAME=value, is wanted");
}

#[test]
fn what_a_process_cannot_do_is_told() {
    let text = "
x-mesh: { runtime: process }
services:
  web: { image: web }
  api: { command: api, user: '5', volumes: [/a:/b], ports: ['80:80'] }
";
    let found = bad(text);
    let expected = [
        "compose.yaml: services.api.volumes: are not for a process: it sees the host's files as they are",
        "compose.yaml: services.api.user: \"5\": is not supported for a process, which runs as whoever runs discovery",
        "compose.yaml: services.api.ports: are not published for a process yet; `expose` says on which port of its own address it serves",
        "compose.yaml: services.web.command: is missing; a process needs the command that it runs",
    ];
    let mut lines: Vec<&str> = found.lines().collect();
    lines.sort_by_key(|line| line.contains("services.web"));
    assert_eq!(lines, expected);
    assert!(bad("services: { web: { command: a } }").contains("services.web.image: is missing; an image, or x-mesh"));
    assert!(bad("name: x").contains("services: is missing"));
    assert!(bad("- a").contains("a mapping"));
    assert!(bad("a: [").contains("not valid YAML"));
    assert!(bad("services: { Web: { image: a } }").contains("services.Web"));
}

#[test]
fn env_files_stand_under_the_environment() {
    let text = "# a\nA=1\nexport B='x y' # no\nC=\"a\\nb\"\nD=a #c\nE=\nURL=http://a#b\n";
    let values = env_file::parse(".env", text).unwrap();
    let pairs: Vec<_> = values.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(pairs, ["A=1", "B=x y", "C=a\nb", "D=a", "E=", "URL=http://a#b"]);
    let wrong = env_file::parse(".env", "A=1\nnothing\nSECRET='x\n").unwrap_err().to_string();
    assert_eq!(wrong.lines().count(), 2);
    assert!(wrong.contains("line 2: \"nothing\"") && !wrong.contains('x'), "{wrong}");

    let text =
        "services: { web: { image: a, env_file: [a.env, { path: b.env, required: false }], environment: { A: own } } }";
    let mut project = good(text);
    let missing = |path: &Path| match path.to_str() {
        Some("/srv/My Shop.2/a.env") => Ok("A=file\nB=2\n".to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    project.read_env_files(missing).unwrap();
    let pairs: Vec<_> =
        project.services[&name("web")].environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(pairs, ["A=own", "B=2"]);
    let mut project = good(text);
    let error = project.read_env_files(|_| Err(std::io::ErrorKind::NotFound.into())).unwrap_err().to_string();
    assert!(error.contains("services.web.env_file: /srv/My Shop.2/a.env: cannot be read"), "{error}");
}
