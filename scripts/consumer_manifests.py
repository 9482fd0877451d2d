"""The overlays of k8s/consumer: builds them, and finds what in the built objects does not agree with each other, with the settings
(.env.example), the metrics (docs/metrics.md), the alerts (docs/alerts.yml) and the commands of k8s/README.md that create Secrets."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONSUMER = ROOT / "k8s/consumer"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
DEFAULTS = dict(re.findall(r"^(REDPANDA_\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.M))
ENDPOINTS = set(re.findall(r'\.route\("([^"]+)"', (ROOT / "serve/src/http.rs").read_text()))
METRICS = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.M))
# From the last record to the next heartbeat: commits, leaving the group, closing connections.
CLOSING_MS = 15_000
# What a node takes to start a pod of a StatefulSet, a pull of the image included.
STARTING_MS = 60_000


def tool(name):
    """Path of a tool that is installed, or that .ci/run has put into the target folder."""
    own = TARGET / name
    return shutil.which(name) or (str(own) if own.exists() else None)


def kustomize(folder):
    """Objects of a kustomization, or None where there is no tool to build it."""
    command = [tool("kustomize"), "build"] if tool("kustomize") else [tool("kubectl"), "kustomize"]
    if command[0] is None:
        return None
    built = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    if built.returncode != 0 or built.stderr.strip(): # such as warnings of deprecated fields
        sys.exit(f"check-manifests: {folder.relative_to(ROOT)}: {built.stderr.strip()}")
    return [o for o in yaml.safe_load_all(built.stdout) if o]


def build_all():
    """The folders to build, and the objects of those that were built."""
    folders = [CONSUMER / "base", *sorted((CONSUMER / "overlays").iterdir())]
    built = [(str(folder.relative_to(ROOT)), kustomize(folder)) for folder in folders]
    return folders, [(where, objects) for where, objects in built if objects is not None]


def unused_components():
    """A component that no overlay has is built by nobody."""
    used = " ".join(path.read_text() for path in (CONSUMER / "overlays").glob("*/kustomization.yaml"))
    names = sorted(folder.name for folder in (CONSUMER / "components").iterdir())
    return [f"k8s/consumer: no overlay has the component {name}" for name in names if f"components/{name}\n" not in used]


def rules():
    """The PrometheusRule of docs/alerts.yml."""
    alerts = (ROOT / "docs/alerts.yml").read_text()
    groups = alerts[alerts.index("groups:"):].splitlines(keepends=True)
    head = """# The rules of docs/alerts.yml, for the Prometheus operator: `scripts/check-manifests --write` copies them.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: ailurus
  labels: {app.kubernetes.io/name: ailurus}
spec:
"""
    return head + "".join("  " + line if line.strip() else line for line in groups)


def secrets():
    """Keys of the Secrets that the commands of k8s/README.md create."""
    text = (ROOT / "k8s/README.md").read_text().replace("\\\n", " ")
    found = {}
    for kind, name, options in re.findall(r"create secret (generic|tls) (\S+)(.*)", text):
        keys = set(re.findall(r"--from-(?:literal|file)=([\w.]+)=", options))
        found[name] = keys | ({"tls.crt", "tls.key"} if kind == "tls" else set())
    return found


def metrics_in(expression):
    """Names of metrics in a query, without the suffixes of histograms."""
    code = re.sub(r'"[^"]*"|\{[^}]*\}', "", expression)
    names = set(re.findall(r"\b(?:ailurus|messaging)_\w+", code)) - set(re.findall(r"\bby \(([^)]*)\)", code))
    return {re.sub(r"_(bucket|count|sum)$", "", name) if name not in METRICS else name for name in names if not name.startswith("messaging_") or name not in LABELS}


def without_line_ends(value):
    if isinstance(value, dict):
        return {key: without_line_ends(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_line_ends(item) for item in value]
    return " ".join(value.split()) if isinstance(value, str) else value


# Labels that look like metrics.
LABELS = set(re.findall(r"`(messaging_\w+)`", "\n".join(
    row.split("|")[3] for row in (ROOT / "docs/metrics.md").read_text().splitlines() if row.startswith("| `") and row.count("|") >= 5)))


class Built:
    """Objects of an overlay, and what is wrong with them."""

    def __init__(self, objects):
        self.objects, self.problems = objects, []
        self.workload = next(o for o in objects if o["kind"] in ("Deployment", "StatefulSet"))
        self.pod = self.workload["spec"]["template"]["spec"]
        self.labels = self.workload["spec"]["template"]["metadata"]["labels"]
        self.container = self.pod["containers"][0]
        self.ports = {p["name"]: p["containerPort"] for p in self.container["ports"]}
        self.settings = {}

    def check(self, true, problem):
        if not true:
            self.problems.append(problem)

    def of_kind(self, kind):
        return [o for o in self.objects if o["kind"] == kind]

    def selects(self, selector, what):
        self.check(selector and selector.items() <= self.labels.items(), f"{what} does not select the pods")

    def milliseconds(self, name):
        return int(self.settings.get(name) or DEFAULTS[name])

    def check_settings(self):
        maps = {o["metadata"]["name"]: o["data"] for o in self.of_kind("ConfigMap")}
        for source in self.container["envFrom"]:
            name = source["configMapRef"]["name"]
            self.check(name in maps, f"no ConfigMap {name}")
            self.settings |= maps.get(name, {})
        for variable in self.container.get("env", []):
            source = variable.get("valueFrom", {})
            if "secretKeyRef" in source:
                self.check_secret(source["secretKeyRef"]["name"], source["secretKeyRef"]["key"])
            elif variable["name"] == "REDPANDA_GROUP_INSTANCE_ID":
                self.check(source == {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}} or source == {"fieldRef": {"fieldPath": "metadata.name"}},
                           "an instance id that is not the pod's name is not unique")
            self.settings[variable["name"]] = variable.get("value", "from " + ", ".join(source))
        unknown = self.settings.keys() - DEFAULTS.keys()
        self.check(not unknown, f"not in .env.example: {sorted(unknown)}")

    def check_secret(self, name, key):
        self.check(key in secrets().get(name, ()), f"no command of k8s/README.md creates the Secret {name} with the key {key}")

    def check_files(self):
        """Files that settings name are keys of Secrets that are mounted there."""
        volumes = {v["name"]: v for v in self.pod.get("volumes", [])}
        mounts = {m["mountPath"]: volumes[m["name"]] for m in self.container.get("volumeMounts", [])}
        for name, path in self.settings.items():
            if name.endswith("_FILE") and path:
                folder, _, key = path.rpartition("/")
                self.check(folder in mounts, f"{name}: nothing is mounted at {folder}")
                if folder in mounts:
                    self.check_secret(mounts[folder]["secret"]["secretName"], key)
        self.check("fsGroup" in self.pod["securityContext"] or not volumes, "the files of Secrets can't be read")

    def check_security(self):
        protocol = self.settings.get("REDPANDA_SECURITY_PROTOCOL", "PLAINTEXT")
        login = {"REDPANDA_SASL_MECHANISM", "REDPANDA_SASL_USERNAME", "REDPANDA_SASL_PASSWORD"}
        self.check(login <= self.settings.keys() or "SASL" not in protocol, "SASL without a login")
        self.check("SASL" in protocol or not login & self.settings.keys(), f"a login that {protocol} does not use")
        self.check("SSL" in protocol or not any(n.startswith("REDPANDA_TLS_") for n in self.settings), f"certificates that {protocol} does not use")

    def check_times(self):
        grace = self.pod["terminationGracePeriodSeconds"] * 1000
        self.check(grace >= self.milliseconds("REDPANDA_SHUTDOWN_TIMEOUT") + CLOSING_MS, "killed before its shutdown timeout and its last commits")
        session = self.milliseconds("REDPANDA_SESSION_TIMEOUT")
        self.check(session >= 3 * self.milliseconds("REDPANDA_HEARTBEAT_INTERVAL"), "heartbeats are too rare for the session timeout")
        static = "REDPANDA_GROUP_INSTANCE_ID" in self.settings
        self.check(static == (self.workload["kind"] == "StatefulSet"), "only pods of a StatefulSet keep their names, and only static members need that")
        self.check(not static or session >= grace + STARTING_MS, "a restart takes longer than the session timeout: partitions move")

    def check_around(self):
        name = self.workload["metadata"]["name"]
        for budget in self.of_kind("PodDisruptionBudget"):
            self.selects(budget["spec"]["selector"]["matchLabels"], "PodDisruptionBudget")
            self.check(budget["spec"].get("maxUnavailable") == 1, "more than one member is evicted at a time, or none")
        self.check(self.of_kind("PodDisruptionBudget"), "no PodDisruptionBudget")
        spread = self.pod["topologySpreadConstraints"]
        self.check({c["topologyKey"] for c in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}, "not spread over zones and nodes")
        for constraint in spread:
            self.selects(constraint["labelSelector"]["matchLabels"], "topologySpreadConstraints")
        self.check(re.fullmatch(rf"{re.escape(name)}:\d+\.\d+\.\d+", self.container["image"]), f"the image {self.container['image']} is not the application's, with a version")
        if self.workload["kind"] == "StatefulSet":
            services = {s["metadata"]["name"]: s["spec"] for s in self.of_kind("Service")}
            self.check(services.get(self.workload["spec"]["serviceName"], {}).get("clusterIP") == "None", "serviceName needs a headless service")

    def check_network(self):
        self.check(self.of_kind("NetworkPolicy"), "no NetworkPolicy")
        for policy in (o["spec"] for o in self.of_kind("NetworkPolicy")):
            self.selects(policy["podSelector"]["matchLabels"], "NetworkPolicy")
            incoming = {p["port"] for rule in policy["ingress"] for p in rule["ports"]}
            self.check(incoming <= {*self.ports, *self.ports.values()}, f"NetworkPolicy opens ports that do not exist: {incoming}")
            outgoing = {(p["protocol"], p["port"]) for rule in policy["egress"] for p in rule["ports"]}
            brokers = {("TCP", int(b.rsplit(":", 1)[1])) for b in self.settings["REDPANDA_BROKERS"].split(",")}
            self.check(brokers | {("UDP", 53), ("TCP", 53)} <= outgoing, "NetworkPolicy lets no request reach brokers or DNS")
            self.check(set(policy["policyTypes"]) == {"Ingress", "Egress"}, "NetworkPolicy leaves a direction open")

    def check_monitoring(self):
        for monitor in self.of_kind("PodMonitor"):
            self.selects(monitor["spec"]["selector"]["matchLabels"], "PodMonitor")
            self.check(monitor["spec"]["jobLabel"] in self.labels, "jobLabel is no label of the pods")
            for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                self.check(endpoint["port"] in self.ports and endpoint["path"] in ENDPOINTS, f"PodMonitor: {endpoint} leads nowhere")
        alerts = yaml.safe_load((ROOT / "docs/alerts.yml").read_text())
        for rule in self.of_kind("PrometheusRule"):
            # Folded lines that are indented are folded with other line ends by other parsers.
            self.check(without_line_ends(rule["spec"]) == without_line_ends(alerts), "the PrometheusRule is not docs/alerts.yml")
            self.check_rules(rule["spec"])

    def check_rules(self, groups):
        for rule in (rule for group in groups["groups"] for rule in group["rules"]):
            unknown = metrics_in(rule["expr"]) - METRICS
            self.check(not unknown, f"{rule['alert']}: not in docs/metrics.md: {sorted(unknown)}")
        if tool("promtool"):
            with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
                yaml.safe_dump(groups, file)
                file.flush()
                checked = subprocess.run([tool("promtool"), "check", "rules", file.name], capture_output=True, text=True, check=False)
                self.check(checked.returncode == 0, f"promtool: {checked.stdout}{checked.stderr}")

    def check_scaling(self):
        for scaled in (o["spec"] for o in self.of_kind("ScaledObject")):
            target = scaled["scaleTargetRef"]
            self.check((target["kind"], target["name"]) == (self.workload["kind"], self.workload["metadata"]["name"]), "ScaledObject scales something else")
            self.check("replicas" not in self.workload["spec"], "each apply would set replicas back")
            self.check(1 <= scaled.get("minReplicaCount", 0) <= scaled["fallback"]["replicas"] <= scaled["maxReplicaCount"], "ScaledObject: replicas")
            self.check(self.workload["kind"] == "Deployment", "partitions of static members that were scaled away wait")
            self.check(self.of_kind("PodMonitor"), "its metric is not scraped")
            for trigger in (t["metadata"] for t in scaled["triggers"]):
                self.check(metrics_in(trigger["query"]) <= METRICS, f"not in docs/metrics.md: {trigger['query']}")
                labels = dict(re.findall(r'(\w+)="([^"]*)"', trigger["query"]))
                jobs = {self.labels.get(m["spec"]["jobLabel"]) for m in self.of_kind("PodMonitor")}
                self.check(labels.get("group") == self.settings["REDPANDA_CONSUMER_GROUP_ID"] and labels.get("job") in jobs, f"another group or job: {labels}")


def problems_of(objects):
    """What is wrong in an overlay."""
    built = Built(objects)
    for check in (built.check_settings, built.check_files, built.check_security, built.check_times, built.check_around,
                  built.check_network, built.check_monitoring, built.check_scaling):
        check()
    return built.problems
