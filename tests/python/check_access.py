"""Checks report.html with axe-core, under Chromium. Usage: check_access.py REPORT AXE, AXE being the file axe.min.js.

Every rule of WCAG's levels A and AA, in light and dark colours, on a desktop and a phone, with everything open and a digit recognized.
Prints JSON: how many contrasts were found sufficient, and each violation.
"""
import json
import pathlib
import sys

from selenium.webdriver.common.by import By

import browser

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
RUN = """
    const [rules, done] = arguments;
    axe.run({ runOnly: { type: "tag", values: rules } }).then((result) => done({
        contrasts: result.passes.filter((pass) => pass.id === "color-contrast").flatMap((pass) => pass.nodes).length,
        violations: result.violations.flatMap((rule) => rule.nodes.map((node) => [rule.id, node.html.slice(0, 200), node.failureSummary])),
    }));"""


def main():
    report, axe = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).read_text()
    contrasts, violations = [], []
    with browser.opened(report) as driver:
        driver.find_element(By.CSS_SELECTOR, ".sample").click()
        driver.execute_script("document.querySelectorAll('details').forEach((details) => { details.open = true; });")
        driver.execute_script(axe)
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                browser.look(driver, width, scheme)
                found = driver.execute_async_script(RUN, RULES)
                contrasts.append(found["contrasts"])
                violations += [[width, scheme, *violation] for violation in found["violations"]]
    print(json.dumps({"contrasts": contrasts, "violations": violations}))


main()
