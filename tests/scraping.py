"""What /metrics says, read as Prometheus reads it."""

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser


class Scraped:
    """The samples of one scrape."""

    def __init__(self, text: str, content_type: str) -> None:
        self.text, self.content_type = text, content_type
        read = openmetrics_parser if "openmetrics" in content_type else parser
        self.families = {family.name: family for family in read.text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float | None:
        """The sum of the samples that have these labels; None when there is none."""
        found = [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        return sum(found) if found else None

    def values(self, name: str, label: str) -> list[str]:
        return sorted({sample.labels[label] for sample in self.samples if sample.name == name})
